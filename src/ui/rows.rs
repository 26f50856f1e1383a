//! Lines that change in place below what is printed: one for each experiment under way.

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// The lines; none where no terminal shows them.
pub(super) struct Rows {
    all: MultiProgress,
    bars: Vec<ProgressBar>,
    style: ProgressStyle,
}

impl std::fmt::Debug for Rows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rows").field("bars", &self.bars.len()).finish_non_exhaustive()
    }
}

impl Rows {
    /// No lines yet; `live` = they are shown.
    pub fn new(live: bool) -> Self {
        let all =
            if live { MultiProgress::new() } else { MultiProgress::with_draw_target(ProgressDrawTarget::hidden()) };
        let style =
            ProgressStyle::with_template("  {spinner} {wide_msg}").unwrap_or_else(|_| ProgressStyle::default_spinner());
        Self { all, bars: Vec::new(), style: style.tick_chars("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏ ") }
    }

    /// Shows these, each cut to the width of the terminal.
    pub fn show(&mut self, lines: &[String]) {
        while self.bars.len() > lines.len() {
            self.drop_last();
        }
        while self.bars.len() < lines.len() {
            let bar = self.all.add(ProgressBar::new_spinner());
            bar.set_style(self.style.clone());
            self.bars.push(bar);
        }
        for (bar, line) in self.bars.iter().zip(lines) {
            bar.set_message(line.clone());
            bar.tick();
        }
    }

    fn drop_last(&mut self) {
        if let Some(bar) = self.bars.pop() {
            bar.finish_and_clear();
            self.all.remove(&bar);
        }
    }

    /// Takes all away.
    pub fn clear(&mut self) {
        while !self.bars.is_empty() {
            self.drop_last();
        }
    }

    /// What prints above them without disturbing them.
    pub fn printer(&self) -> MultiProgress {
        self.all.clone()
    }
}
