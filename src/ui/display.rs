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
}

impl Display {
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
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERMINAL: Terminal = Terminal { stdout: true, stderr: true, no_color: false, dumb: false, ci: false };
    const PIPE: Terminal = Terminal { stdout: false, stderr: false, ..TERMINAL };

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
}
