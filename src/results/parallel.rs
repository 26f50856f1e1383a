//! The same for many files, on the processors that there are.

use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

/// More threads than this only wait for the disk.
const MOST: usize = 4;
/// Items that one thread hands to another at once.
const PORTION: usize = 256;
/// Portions that are made before the first of them is worked on.
const AHEAD: usize = 4;
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

/// Hands whatever `next` yields to `work`, in that order, and returns what `work` made of `state`. Where there is more than one portion of
/// it, a second thread works on the last one while this one makes the next.
pub(crate) fn in_portions<T: Send, S: Send>(
    next: impl FnMut() -> Option<T>,
    mut state: S,
    work: impl Fn(&mut S, T) + Sync,
) -> S {
    let mut all = std::iter::from_fn(next).fuse();
    let mut portion = || -> Vec<T> { all.by_ref().take(PORTION).collect() };
    let first = portion();
    if first.len() < PORTION {
        first.into_iter().for_each(|item| work(&mut state, item));
        return state;
    }
    let (give, take) = mpsc::sync_channel::<Vec<T>>(AHEAD);
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            take.into_iter().flatten().for_each(|item| work(&mut state, item));
            state
        });
        let mut full = first;
        // It is gone only where it panicked, which joining it says.
        while !full.is_empty() && give.send(full).is_ok() {
            full = portion();
        }
        drop(give);
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[cfg(test)]
mod tests {
    use crate::results::parallel::*;

    #[test]
    fn portions_are_worked_on_in_their_order() {
        for count in [0, 1, PORTION - 1, PORTION, PORTION + 1, 10 * PORTION] {
            let mut items = 0..count;
            let sum = in_portions(|| items.next(), Vec::new(), |done: &mut Vec<usize>, item| done.push(item));
            assert_eq!(sum, (0..count).collect::<Vec<_>>());
        }
    }

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
