//! The same for many files, on the processors that there are.

use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};

/// More threads than this only wait for the disk.
const MOST: usize = 4;
/// Items that a thread takes at once: answers to many need few allocations.
const SHARE: usize = 128;

/// Applies `work` to every item; the answers stand in the order of the items. Each thread has a buffer of its own.
pub(crate) fn map<T: Sync, R: Send>(
    items: &[T],
    work: impl Fn(&T, &mut Vec<u8>) -> R + Sync,
) -> impl Iterator<Item = R> {
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get).min(MOST).min(items.len());
    let share = (items.len() / (threads.max(1) * 4)).clamp(1, SHARE);
    let next = AtomicUsize::new(0);
    let busy = || {
        let mut buffer = Vec::new();
        let mut done: Vec<(usize, Vec<R>)> = Vec::new();
        loop {
            let from = next.fetch_add(share, Ordering::Relaxed);
            let Some(items) = items.get(from..items.len().min(from + share)).filter(|items| !items.is_empty()) else {
                return done;
            };
            done.push((from, items.iter().map(|item| work(item, &mut buffer)).collect()));
        }
    };
    let mut done: Vec<(usize, Vec<R>)> = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(busy)).collect();
        let mut done = busy();
        for other in others {
            match other.join() {
                Ok(theirs) => done.extend(theirs),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        done
    });
    done.sort_by_key(|(from, _)| *from);
    done.into_iter().flat_map(|(_, answers)| answers)
}

#[cfg(test)]
mod tests {
    use crate::results::parallel::*;

    #[test]
    fn answers_stand_in_the_order_of_the_items() {
        for count in [0usize, 1, 2, 3, 100, 1001] {
            let items: Vec<usize> = (0..count).collect();
            assert_eq!(
                map(&items, |item, _| item * 2).collect::<Vec<_>>(),
                (0..count).map(|item| item * 2).collect::<Vec<_>>()
            );
        }
    }
}
