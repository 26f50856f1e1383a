//! Servers of one run that disturb each other: each is slower while another one is busy.
//!
//! A server that is busy holds an abstract socket whose name says so; the others see it in the kernel's table. The kernel takes it away
//! with the process, however that ends: nothing is left behind, and nobody waits for the dead.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What all names begin with.
const NAME: &str = "vllm-bench-sim-busy";
/// The kernel's table of such sockets.
const TABLE: &str = "/proc/net/unix";
/// The table is read no more often.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// What a server knows of the others of its run.
#[derive(Debug)]
pub struct Neighbours {
    /// By how much it is slower beside a busy one, as a part.
    interference: f64,
    /// What the names of all servers of this run begin with.
    prefix: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Pieces of work under way.
    works: u32,
    /// Held while there are any.
    busy: Option<UnixListener>,
    /// When the others were looked at, and whether one was busy.
    seen: Option<(Instant, bool)>,
}

/// A piece of work under way: while it lives the server is busy.
#[derive(Debug)]
pub struct Work(Arc<Neighbours>);

impl Neighbours {
    /// For a server of the run with this name. `None` where nothing disturbs it.
    pub fn of(interference: f64, run: Option<&str>) -> Option<Arc<Self>> {
        let prefix = format!("{NAME}/{}/", run.filter(|_| interference > 0.0)?);
        Some(Arc::new(Self { interference, prefix, state: Mutex::default() }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn own_name(&self) -> String {
        format!("{}{}-{:p}", self.prefix, std::process::id(), self)
    }

    /// Work begins.
    pub fn work(self: &Arc<Self>) -> Work {
        let mut state = self.state();
        state.works += 1;
        if state.busy.is_none() {
            let address = SocketAddr::from_abstract_name(self.own_name());
            state.busy = address.and_then(|address| UnixListener::bind_addr(&address)).ok();
        }
        drop(state);
        Work(Arc::clone(self))
    }

    /// By what the time of a step is multiplied now.
    pub fn factor(&self) -> f64 {
        let mut state = self.state();
        let known = state.seen.filter(|(at, _)| at.elapsed() < LOOK_EVERY);
        let busy = known.map_or_else(|| self.another_is_busy(), |(_, busy)| busy);
        if known.is_none() {
            state.seen = Some((Instant::now(), busy));
        }
        if busy { 1.0 + self.interference } else { 1.0 }
    }

    fn another_is_busy(&self) -> bool {
        let own = self.own_name();
        let table = std::fs::read(TABLE).unwrap_or_default();
        let table = String::from_utf8_lossy(&table);
        let names = table.lines().filter_map(|line| line.rsplit_once('@').map(|(_, name)| name));
        names.into_iter().any(|name| name.starts_with(&self.prefix) && name != own)
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.works -= 1;
        if state.works == 0 {
            state.busy = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_slower_while_another_one_of_its_run_is_busy() {
        let run = format!("test-{}", std::process::id());
        let server = |run: &str| Neighbours::of(0.05, Some(run)).unwrap();
        let (one, two, other) = (server(&run), server(&run), server(&format!("{run}-other")));
        let look = |server: &Neighbours| {
            server.state().seen = None;
            server.factor()
        };
        assert_eq!(look(&one), 1.0);
        let work = two.work();
        let more = two.work();
        assert_eq!((look(&one), look(&two), look(&other)), (1.05, 1.0, 1.0));
        drop(work);
        assert_eq!(look(&one), 1.05);
        drop(more);
        assert_eq!(look(&one), 1.0);
        assert!(Neighbours::of(0.0, Some(&run)).is_none() && Neighbours::of(0.1, None).is_none());
    }
}
