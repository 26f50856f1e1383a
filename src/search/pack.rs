//! Which block begins next where several run at once and each needs some of the devices: pure.
//!
//! Blocks stand in a queue. Its head begins as soon as its devices are free; until then others may begin before it where that does
//! not delay it by what is estimated: they end before the head's devices are free, or need devices that it leaves over
//! ("EASY" backfilling, Lifka 1995). A block that runs longer than its estimate counts as about to end, so that nothing is put in
//! before the head for its sake: a large block waits for those that run when it becomes the head, and for no others.
//!
//! In which order the queue stands is found by trying: longest first, widest first, largest first; whichever the estimates
//! finish first.

/// What a block that waits needs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Need {
    /// Devices.
    pub units: u32,
    /// How long it will take, seconds.
    pub seconds: f64,
}

/// A block that runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Running {
    /// Its devices.
    pub units: u32,
    /// When it will end, in seconds on the clock of `now`.
    pub until: f64,
}

/// What is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// So many blocks may begin.
    pub blocks: usize,
    /// Devices.
    pub units: u32,
}

/// The place in the queue of the block that begins now; `None` = none: something must end first.
pub fn next(queue: &[Need], running: &[Running], room: Room, now: f64) -> Option<usize> {
    let head = queue.first().filter(|_| room.blocks > 0)?;
    // What fits on no machine of this size is not waited for: who runs it says so.
    if head.units <= room.units || running.is_empty() {
        return Some(0);
    }
    let (shadow, spare) = reservation(head.units, running, room.units, now);
    let fits = |need: &Need| need.units <= room.units && (now + need.seconds <= shadow || need.units <= spare);
    queue.iter().skip(1).position(fits).map(|place| place + 1)
}

/// When the head's devices will be free, and how many are free beside them then.
fn reservation(units: u32, running: &[Running], free: u32, now: f64) -> (f64, u32) {
    let mut ends: Vec<(f64, u32)> = running.iter().map(|block| (block.until.max(now), block.units)).collect();
    ends.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut free = free;
    for (at, more) in ends {
        free = free.saturating_add(more);
        if free >= units {
            return (at, free - units);
        }
    }
    (f64::INFINITY, 0)
}

/// How long a queue takes in this order, seconds, by its estimates.
pub fn makespan(queue: &[Need], lanes: usize, units: u32) -> f64 {
    let mut waiting = queue.to_vec();
    let mut running: Vec<Running> = Vec::new();
    let mut now = 0.0;
    loop {
        let taken: u32 = running.iter().map(|block| block.units).sum();
        let room = Room { blocks: lanes.max(1).saturating_sub(running.len()), units: units.saturating_sub(taken) };
        if let Some(place) = next(&waiting, &running, room, now) {
            let Need { units, seconds } = waiting.remove(place);
            running.push(Running { units, until: now + seconds.max(0.0) });
            continue;
        }
        let Some(first) = running.iter().map(|block| block.until).min_by(f64::total_cmp) else { return now };
        now = first;
        running.retain(|block| block.until > now);
    }
}

/// The order in which a queue ends first, by its estimates: places in `queue`.
pub fn arrange(queue: &[Need], lanes: usize, units: u32) -> Vec<usize> {
    let longest = |need: &Need| (need.seconds, f64::from(need.units));
    let widest = |need: &Need| (f64::from(need.units), need.seconds);
    let largest = |need: &Need| (f64::from(need.units) * need.seconds, need.seconds);
    let orders = [order(queue, longest), order(queue, widest), order(queue, largest)];
    let time = |order: &Vec<usize>| {
        let needs: Vec<Need> = order.iter().filter_map(|place| queue.get(*place).copied()).collect();
        makespan(&needs, lanes, units)
    };
    orders.into_iter().min_by(|a, b| time(a).total_cmp(&time(b))).unwrap_or_default()
}

/// Places, those with the largest key first; of equals in the order of the queue.
fn order(queue: &[Need], key: impl Fn(&Need) -> (f64, f64)) -> Vec<usize> {
    let mut places: Vec<(usize, (f64, f64))> = queue.iter().map(key).enumerate().collect();
    places.sort_by(|(_, a), (_, b)| b.0.total_cmp(&a.0).then(b.1.total_cmp(&a.1)));
    places.into_iter().map(|(place, _)| place).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn need(units: u32, seconds: f64) -> Need {
        Need { units, seconds }
    }

    const ALL: Room = Room { blocks: 9, units: 8 };

    #[test]
    fn the_head_begins_where_it_fits_and_others_only_where_they_do_not_delay_it() {
        let queue = [need(8, 10.0), need(4, 30.0), need(2, 5.0), need(2, 50.0)];
        assert_eq!(next(&queue, &[], ALL, 0.0), Some(0));
        let half = [Running { units: 4, until: 20.0 }];
        let room = Room { blocks: 9, units: 4 };
        // The one of four devices would hold up the head by ten seconds; that of two ends before.
        assert_eq!(next(&queue, &half, room, 0.0), Some(2));
        assert_eq!(next(&queue, &half, room, 16.0), None, "now it would end too late");
        assert_eq!(next(&queue, &half, room, 40.0), None, "what runs too long may end at any moment");
        assert_eq!(next(&queue, &half, Room { blocks: 0, units: 4 }, 0.0), None);
        // A head of six leaves two devices over: whoever needs no more may begin, however long it takes.
        let queue = [need(6, 10.0), need(4, 30.0), need(2, 500.0)];
        assert_eq!(next(&queue, &half, room, 0.0), Some(2));
    }

    #[test]
    fn what_fits_nowhere_is_not_waited_for() {
        assert_eq!(next(&[need(16, 1.0)], &[], ALL, 0.0), Some(0));
    }

    #[test]
    fn the_grid_of_tp_2_4_8_takes_little_more_than_its_devices_allow() {
        // Starts take longer on more devices, measurements less long.
        let grid: Vec<Need> =
            [2u32, 4, 8].into_iter().flat_map(|tp| vec![need(tp, 60.0 + 80.0 / f64::from(tp)); 9]).collect();
        let alone: f64 = grid.iter().map(|need| need.seconds).sum();
        let queue: Vec<Need> = arrange(&grid, 8, 8).into_iter().map(|place| grid[place]).collect();
        let ratio = alone / makespan(&queue, 8, 8);
        assert!(ratio >= 1.6, "{ratio}");
    }

    /// Blocks by devices, estimate, and how long they take in fact.
    fn blocks() -> impl Strategy<Value = Vec<(u32, u32, u32)>> {
        prop::collection::vec((1u32..=8, 1u32..100, 1u32..400), 1..30)
    }

    proptest! {
        /// Runs a queue whose estimates are wrong: everything is run, never more than there is room for, and once the blocks that
        /// ran when a block became the head are over by their estimates, nothing begins before it but on devices that it leaves over.
        #[test]
        fn nobody_starves_whatever_blocks_take(blocks in blocks(), lanes in 1usize..6) {
            let needs: Vec<Need> = blocks.iter().map(|(units, seconds, _)| need(*units, f64::from(*seconds))).collect();
            let mut waiting: Vec<usize> = arrange(&needs, lanes, 8);
            let mut running: Vec<(usize, f64, f64)> = Vec::new();
            let (mut now, mut begun) = (0.0, 0);
            let mut head: Option<(usize, f64)> = None;
            loop {
                let told: Vec<Running> =
                    running.iter().map(|(which, until, _)| Running { units: needs[*which].units, until: *until }).collect();
                let taken: u32 = told.iter().map(|block| block.units).sum();
                prop_assert!(taken <= 8 && running.len() <= lanes);
                if let Some(first) = waiting.first() && head.is_none_or(|(known, _)| known != *first) {
                    head = Some((*first, told.iter().map(|block| block.until).fold(now, f64::max)));
                }
                let queue: Vec<Need> = waiting.iter().map(|which| needs[*which]).collect();
                let room = Room { blocks: lanes - running.len(), units: 8 - taken };
                if let Some(place) = next(&queue, &told, room, now) {
                    if place > 0 {
                        let (_, latest) = head.unwrap();
                        let (_, spare) = reservation(queue[0].units, &told, room.units, now);
                        prop_assert!(now + queue[place].seconds <= latest || queue[place].units <= spare);
                    }
                    let which = waiting.remove(place);
                    running.push((which, now + needs[which].seconds, now + f64::from(blocks[which].2)));
                    begun += 1;
                    continue;
                }
                let Some(first) = running.iter().map(|block| block.2).min_by(f64::total_cmp) else { break };
                now = first;
                running.retain(|block| block.2 > now);
            }
            prop_assert_eq!(begun, blocks.len());
        }

        /// Where estimates are right, the head begins when it could without those that begin before it.
        #[test]
        fn backfill_never_delays_the_head(blocks in blocks(), lanes in 1usize..6) {
            let mut waiting: Vec<Need> = blocks.iter().map(|(units, seconds, _)| need(*units, f64::from(*seconds))).collect();
            let mut running: Vec<Running> = Vec::new();
            let (mut now, mut reserved): (f64, Option<f64>) = (0.0, None);
            loop {
                let taken: u32 = running.iter().map(|block| block.units).sum();
                let room = Room { blocks: lanes - running.len(), units: 8 - taken };
                if let Some(head) = waiting.first().filter(|head| room.blocks > 0 && head.units > room.units) {
                    let (shadow, _) = reservation(head.units, &running, room.units, now);
                    prop_assert!(reserved.is_none_or(|known| shadow <= known), "{shadow} after {reserved:?}");
                    reserved = Some(shadow);
                }
                if let Some(place) = next(&waiting, &running, room, now) {
                    if place == 0 {
                        prop_assert!(reserved.is_none_or(|known| now <= known));
                        reserved = None;
                    }
                    let Need { units, seconds } = waiting.remove(place);
                    running.push(Running { units, until: now + seconds });
                    continue;
                }
                let Some(first) = running.iter().map(|block| block.until).min_by(f64::total_cmp) else { break };
                now = first;
                running.retain(|block| block.until > now);
            }
            prop_assert!(waiting.is_empty());
        }

        /// Every block has its place, whatever the order.
        #[test]
        fn an_order_loses_nothing(blocks in blocks(), lanes in 1usize..6) {
            let needs: Vec<Need> = blocks.iter().map(|(units, seconds, _)| need(*units, f64::from(*seconds))).collect();
            let mut places = arrange(&needs, lanes, 8);
            places.sort_unstable();
            prop_assert_eq!(places, (0..blocks.len()).collect::<Vec<_>>());
        }
    }
}
