//! `dashboard`, and `run --dashboard`: the runs of results directories for the browser and for Prometheus. What is shown is what
//! `status`, `list`, `recommend`, `plot` and `report` say; here they are put together.

mod one;
pub mod push;
mod runs;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::runs::Runs;
use crate::cli::{DashboardArgs, LoadArgs, RunArgs};
use crate::commands::find_run;
use crate::config::{Environment, Pushed, Settings};
use crate::dashboard::{LoadSource, Options, PORT, Pusher, Server, Token};
use crate::error::Error;
use crate::exit;
use crate::process::signals;
use crate::record::{RunDir, list_runs};
use crate::ui::{Reporter, Ui};

/// Serves until Ctrl-C, which is a normal end.
///
/// # Errors
/// When there is no such run or directory, or it cannot listen.
pub async fn run(args: &DashboardArgs, environment: &Environment, ui: &Ui) -> Result<u8, Error> {
    let address = address(args.listen.as_deref(), "--listen")?;
    let runs = runs_of(args, environment)?;
    let options = Options {
        control: args.allow_control,
        metrics_open: args.metrics_open,
        hosts: args.allow_host.iter().map(|host| host.trim().to_owned()).collect(),
    };
    let begin = |listener, token| Server::start(listener, token, options, Arc::new(runs));
    let server = serve(address, begin).map_err(|why| Error::Usage {
        message: why.message,
        hint: format!("{}: `--listen 127.0.0.1:0` takes a free one", why.hint),
    })?;
    ui.say("the dashboard, to be opened in a browser (Ctrl-C ends it):");
    ui.out(&server.link());
    tell_open(&server, ui);
    signals::interrupted().await;
    Ok(exit::OK)
}

/// Serves the run that this process is about to measure, beside it. What goes wrong is a warning: the run goes on.
pub fn beside(run: &RunDir, args: &RunArgs, environment: &Environment, ui: &Ui) -> Option<Server> {
    let at = args.dashboard.as_ref()?;
    let address = match address(at.as_deref(), "--dashboard") {
        Ok(address) => address,
        // Told before anything was begun.
        Err(_) => return None,
    };
    let dir = run.path().parent().map(Path::to_owned).unwrap_or_default();
    let runs = Runs::new(vec![dir], Some(run.path().to_owned()), environment);
    let options = Options { control: args.allow_control, metrics_open: args.metrics_open, hosts: Vec::new() };
    let begin = |listener, token| Server::start(listener, token, options, Arc::new(runs));
    match serve(address, begin) {
        Ok(server) => {
            if args.detached_child {
                // What is said here is in a file beside the results: the token stays out of it.
                ui.say(&format!("dashboard: {} (its token is in {})", server.place(), token_place(&server)));
            } else {
                ui.say(&format!("dashboard: {}", server.link()));
            }
            tell_open(&server, ui);
            Some(server)
        }
        Err(why) => {
            ui.warn(&format!("{}; the run goes on without a dashboard", why.message));
            ui.hint(&format!("{}; `vllm-bench dashboard` shows the run as well", why.hint));
            None
        }
    }
}

/// Serves a load beside it. What goes wrong is a warning: the load goes on.
///
/// # Errors
/// When the address cannot be read.
pub fn beside_load(args: &LoadArgs, source: Arc<dyn LoadSource>, ui: &Ui) -> Result<Option<Server>, Error> {
    let Some(at) = &args.dashboard else { return Ok(None) };
    let address = address(at.as_deref(), "--dashboard")?;
    let options = Options { metrics_open: args.metrics_open, ..Options::default() };
    let begin = |listener, token| Server::start_load(listener, token, options, source);
    match serve(address, begin) {
        Ok(server) => {
            ui.say(&format!("dashboard: {}", server.link()));
            tell_open(&server, ui);
            Ok(Some(server))
        }
        Err(why) => {
            ui.warn(&format!("{}; the load goes on without a dashboard", why.message));
            ui.hint(&why.hint);
            Ok(None)
        }
    }
}

/// Pushes the run that this process works on, or watches, to the Pushgateway of its settings.
pub fn pushed(run: &RunDir, settings: &Settings, environment: &Environment, reporter: &Reporter) -> Option<Pusher> {
    let warned = reporter.clone();
    let warn = move |text: String| warned.print(&format!("warning: {text}"));
    match settings.pushgateway.as_ref()? {
        Pushed::To(gateway) => {
            reporter.print(&format!("metrics are pushed to {}", gateway.group(&push::labels_of_run(run))));
            push::run(gateway, run, environment, warn)
        }
        Pushed::Forgotten => {
            warn(
                "the address of the Pushgateway had a password in it, which no record keeps: nothing is pushed until \
                  `--pushgateway URL` is given again"
                    .to_owned(),
            );
            None
        }
    }
}

/// Checks the address of `run --dashboard` before anything is begun.
///
/// # Errors
/// When it is none.
pub fn check(args: &RunArgs) -> Result<(), Error> {
    args.dashboard.as_ref().map_or(Ok(()), |at| address(at.as_deref(), "--dashboard").map(drop))
}

fn token_place(server: &Server) -> String {
    server.token_file().display().to_string()
}

/// Says what it means that others may reach it.
fn tell_open(server: &Server, ui: &Ui) {
    if !server.address().ip().is_loopback() {
        ui.warn(&format!(
            "the dashboard listens on {}: whoever reaches it and has the link sees what it shows, and nothing is encrypted on the way",
            server.address()
        ));
    }
}

/// Why nothing is served.
struct Why {
    message: String,
    hint: String,
}

fn serve(
    address: SocketAddr,
    begin: impl FnOnce(TcpListener, Token) -> std::io::Result<Server>,
) -> Result<Server, Why> {
    let listener = TcpListener::bind(address).map_err(|error| Why {
        message: format!("the dashboard cannot listen on {address}: {error}"),
        hint: "name another port".to_owned(),
    })?;
    let token = Token::of_user().map_err(|error| Why {
        message: format!("{error}: {}", error.source),
        hint: "see to that file, or name another port".to_owned(),
    })?;
    let address = listener.local_addr().unwrap_or(address);
    begin(listener, token).map_err(|error| Why {
        message: format!("the dashboard cannot serve on {address}: {error}"),
        hint: "name another port".to_owned(),
    })
}

/// `8080`, `HOST:PORT`, `HOST`.
fn address(text: Option<&str>, flag: &str) -> Result<SocketAddr, Error> {
    let Some(text) = text.map(str::trim).filter(|text| !text.is_empty()) else {
        return Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), PORT));
    };
    let wrong = || {
        let is_file = Path::new(text).extension().is_some_and(|end| end.to_string_lossy().parse::<u16>().is_err());
        let hint = if is_file && flag == "--dashboard" {
            "write sweep files before the flags, or `--dashboard=ADDR`"
        } else {
            "such as `8080`, `127.0.0.1:8080` or `0.0.0.0:8080`"
        };
        Error::Usage {
            message: format!(
                "invalid value `{}` for `{flag}`: expected a port, or an address and a port",
                text.escape_debug()
            ),
            hint: hint.to_owned(),
        }
    };
    if let Ok(port) = text.parse::<u16>() {
        return Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
    }
    if let Ok(ip) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
        return Ok(SocketAddr::new(ip, PORT));
    }
    if text == "localhost" {
        return Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), PORT));
    }
    // A name is looked up only where a port says that one is meant.
    let has_port = text.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let mut found = has_port.then(|| text.to_socket_addrs().ok()).flatten().into_iter().flatten();
    found.next().ok_or_else(wrong)
}

/// The runs to show: those of the directory named, of the directory of the run named, else of the usual ones.
fn runs_of(args: &DashboardArgs, environment: &Environment) -> Result<Runs, Error> {
    let dirs = find_run::results_dirs(args.results_dir.as_deref(), environment);
    let Some(named) = &args.run else {
        let chosen = args.results_dir.as_deref().map(|dir| environment.absolute(dir)).filter(|dir| is_run(dir));
        return Ok(Runs::new(dirs, chosen, environment));
    };
    let path = environment.absolute(named);
    // A results directory may be empty: its first run is about to begin.
    if path.is_dir() && !is_run(&path) && (args.results_dir.is_none() || !list_runs(&path)?.is_empty()) {
        return Ok(Runs::new(vec![path], None, environment));
    }
    let found = find_run::named(named, &dirs, environment)?;
    let dir = found.run.path().parent().map(Path::to_owned).unwrap_or_default();
    Ok(Runs::new(vec![dir], Some(found.run.path().to_owned()), environment))
}

fn is_run(path: &Path) -> bool {
    RunDir::at(path).is_some()
}

/// How a path is told from others.
fn key(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// All runs of these directories, the newest last.
fn all_runs(dirs: &[PathBuf]) -> Vec<RunDir> {
    dirs.iter().filter_map(|dir| list_runs(dir).ok()).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Result<String, String> {
        address(Some(text), "--dashboard").map(|at| at.to_string()).map_err(|error| match error {
            Error::Usage { message, hint } => format!("{message} ({hint})"),
            other => other.to_string(),
        })
    }

    #[test]
    fn addresses_are_read_and_a_sweep_file_is_none() {
        assert_eq!(address(None, "--listen").unwrap().to_string(), "127.0.0.1:8765");
        for (text, expected) in [
            ("8080", "127.0.0.1:8080"),
            ("0", "127.0.0.1:0"),
            ("0.0.0.0:9000", "0.0.0.0:9000"),
            ("0.0.0.0", "0.0.0.0:8765"),
            ("[::1]:9000", "[::1]:9000"),
            ("::1", "[::1]:8765"),
            ("localhost", "127.0.0.1:8765"),
        ] {
            assert_eq!(at(text).unwrap(), expected, "{text}");
        }
        assert!(at("sweep.yaml").unwrap_err().contains("write sweep files before the flags"));
        for bad in ["70000", "a b", "host", "1.2.3", ":"] {
            assert!(at(bad).unwrap_err().contains("expected a port"), "{bad}");
        }
    }
}
