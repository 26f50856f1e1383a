//! What the terminal shows, as a pure function of flags, terminal and environment.

use crate::cli::Color;

/// What is known of the place where the output goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terminal {
    /// stdout is a terminal.
    pub stdout: bool,
    /// stderr is a terminal.
    pub stderr: bool,
    /// `NO_COLOR` is set and not empty.
    pub no_color: bool,
    /// `TERM` is `dumb`.
    pub dumb: bool,
    /// `CI` is set.
    pub ci: bool,
    /// How wide the terminal behind stdout is.
    pub columns_out: Option<usize>,
    /// The same of stderr.
    pub columns_err: Option<usize>,
}

/// What is shown, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Display {
    /// Colour on stdout.
    pub color_out: bool,
    /// Colour on stderr.
    pub color_err: bool,
    /// One line that changes in place, on stderr; else plain lines.
    pub live: bool,
    /// Talk at all.
    pub talk: bool,
    /// How much more to say.
    pub verbose: u8,
    /// Paragraphs on stdout are no wider; `None` where no terminal shows them.
    pub columns_out: Option<usize>,
    /// The same on stderr.
    pub columns_err: Option<usize>,
}

/// A terminal that is narrower is written to as if it were so wide: words would not fit.
const NARROWEST: usize = 40;

impl Display {
    /// For files and pipes, silent: no colour, no width.
    pub const PLAIN: Self = Self {
        color_out: false,
        color_err: false,
        live: false,
        talk: false,
        verbose: 0,
        columns_out: None,
        columns_err: None,
    };

    /// Decides.
    pub fn decide(color: Color, quiet: bool, verbose: u8, terminal: Terminal) -> Self {
        let colored = |is_terminal: bool| match color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => is_terminal && !terminal.no_color && !terminal.dumb,
        };
        Self {
            color_out: colored(terminal.stdout),
            color_err: colored(terminal.stderr),
            live: terminal.stderr && !terminal.dumb && !terminal.ci && !quiet,
            talk: !quiet,
            verbose,
            columns_out: terminal.columns_out.map(|columns| columns.max(NARROWEST)),
            columns_err: terminal.columns_err.map(|columns| columns.max(NARROWEST)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERMINAL: Terminal = Terminal {
        stdout: true,
        stderr: true,
        no_color: false,
        dumb: false,
        ci: false,
        columns_out: Some(80),
        columns_err: Some(12),
    };
    const PIPE: Terminal = Terminal { stdout: false, stderr: false, columns_out: None, columns_err: None, ..TERMINAL };

    #[test]
    fn the_truth_table() {
        let show = |color, quiet, terminal| {
            let d = Display::decide(color, quiet, 0, terminal);
            (d.color_out, d.color_err, d.live, d.talk)
        };
        assert_eq!(show(Color::Auto, false, TERMINAL), (true, true, true, true));
        assert_eq!(show(Color::Auto, false, PIPE), (false, false, false, true));
        assert_eq!(show(Color::Always, false, PIPE), (true, true, false, true));
        assert_eq!(show(Color::Never, false, TERMINAL), (false, false, true, true));
        assert_eq!(show(Color::Auto, true, TERMINAL), (true, true, false, false));
        assert_eq!(show(Color::Auto, false, Terminal { no_color: true, ..TERMINAL }), (false, false, true, true));
        assert_eq!(show(Color::Always, false, Terminal { no_color: true, ..TERMINAL }), (true, true, true, true));
        assert_eq!(show(Color::Auto, false, Terminal { dumb: true, ..TERMINAL }), (false, false, false, true));
        assert_eq!(show(Color::Auto, false, Terminal { ci: true, ..TERMINAL }), (true, true, false, true));
    }
    #[test]
    fn paragraphs_are_as_wide_as_the_terminal_and_never_of_single_letters() {
        let columns = |terminal| {
            let display = Display::decide(Color::Auto, false, 0, terminal);
            (display.columns_out, display.columns_err)
        };
        assert_eq!(columns(TERMINAL), (Some(80), Some(40)));
        assert_eq!(columns(PIPE), (None, None));
    }
}
