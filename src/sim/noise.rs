//! How simulated measurements vary: between starts of a server, between measurements on one start, over a run (drift), and
//! starts that are slow as a whole (outliers). Pure: what varies follows from the seed of the simulation, the settings that
//! are measured, the number of the start and that of the measurement, and from nothing that happens while it runs. So a plan
//! gives the same results on every machine, in any order, and when it is resumed.
//!
//! Only additions and multiplications turn random numbers into factors: they round alike everywhere.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::settings::SettingError;
use super::timing::Turn;

/// An outlier start takes so many times as long.
pub const OUTLIER: f64 = 1.25;
/// No draw lies further out than so many standard deviations.
const FURTHEST: f64 = 3.5;

/// How much measurements vary, in parts: 0.02 is 2 %.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Noise {
    /// Standard deviation between starts of a server.
    pub between: f64,
    /// Standard deviation between measurements on one start.
    pub within: f64,
    /// By how much each experiment of the plan is slower than the one before it.
    pub drift: f64,
    /// The share of starts that are outliers.
    pub outliers: f64,
}

impl Default for Noise {
    fn default() -> Self {
        Self { between: 0.02, within: 0.005, drift: 0.0, outliers: 0.0 }
    }
}

/// `--sim-noise` and `--sim-noise-within`: a standard deviation. More than a quarter would let a factor fall to nothing.
pub fn parse_noise(text: &str) -> Result<f64, SettingError> {
    part(text, 0.0, 0.25, "a part from 0 to 25 %, such as `2%` or `0.02`")
}

/// `--sim-drift`: from each experiment of the plan to the next.
pub fn parse_drift(text: &str) -> Result<f64, SettingError> {
    part(text, -0.1, 0.1, "a part from -10 to 10 %, such as `0.2%` or `0.002`")
}

/// `--sim-outliers`: a share of starts.
pub fn parse_outliers(text: &str) -> Result<f64, SettingError> {
    part(text, 0.0, 1.0, "a part from 0 to 100 %, such as `10%` or `0.1`")
}

/// `--sim-interference`: by how much a server is slower while another one is busy.
pub fn parse_interference(text: &str) -> Result<f64, SettingError> {
    part(text, 0.0, 1.0, "a part from 0 to 100 %, such as `5%` or `0.05`")
}

/// `2%`, `0.02`.
fn part(text: &str, least: f64, most: f64, expected: &'static str) -> Result<f64, SettingError> {
    let number = match text.trim().strip_suffix('%') {
        Some(number) => number.trim().parse::<f64>().map(|number| number / 100.0),
        None => text.trim().parse::<f64>(),
    };
    let number = number.ok().filter(|number| (least..=most).contains(number));
    // Zero has one sign.
    number.map(|number| number + 0.0).ok_or_else(|| SettingError::Value { value: text.into(), expected })
}

impl Noise {
    /// By what a start multiplies the time of every step. `draw` follows from the server configuration and the number of
    /// the start.
    pub fn of_start(&self, seed: u64, draw: u64) -> f64 {
        let is_outlier = generator(seed, draw, Stream::Outlier).random::<f64>() < self.outliers;
        let around = if is_outlier { OUTLIER } else { 1.0 };
        around * (1.0 + self.between * normal(generator(seed, draw, Stream::Start)))
    }

    /// By what a measurement multiplies it further.
    pub fn of_turn(&self, seed: u64, turn: Turn) -> f64 {
        let drift = (1.0 + self.drift * turn.position.saturating_sub(1) as f64).clamp(0.1, 10.0);
        drift * (1.0 + self.within * normal(generator(seed, turn.draw, Stream::Turn)))
    }
}

/// What a random number is for: none is used twice.
#[derive(Clone, Copy)]
enum Stream {
    Start = 1,
    Outlier = 2,
    Turn = 3,
}

fn generator(seed: u64, draw: u64, stream: Stream) -> ChaCha8Rng {
    let mut generator = ChaCha8Rng::seed_from_u64(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ draw);
    generator.set_stream(stream as u64);
    generator
}

/// A draw of mean 0 and standard deviation 1: twelve uniform ones added up (Irwin-Hall), near enough to a normal one.
fn normal(mut generator: ChaCha8Rng) -> f64 {
    let sum: f64 = (0..12).map(|_| generator.random::<f64>()).sum();
    (sum - 6.0).clamp(-FURTHEST, FURTHEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Noise = Noise { between: 0.0, within: 0.0, drift: 0.0, outliers: 0.0 };

    fn spread(values: &[f64]) -> (f64, f64) {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let squares: f64 = values.iter().map(|value| (value - mean) * (value - mean)).sum();
        (mean, (squares / (values.len() - 1) as f64).sqrt())
    }

    #[test]
    fn starts_and_measurements_spread_as_asked() {
        let noise = Noise::default();
        for seed in [0, 7] {
            let starts: Vec<f64> = (0..4000).map(|draw| noise.of_start(seed, draw * 0x1234_5678_9abc)).collect();
            let turns: Vec<f64> =
                (0..4000).map(|draw| noise.of_turn(seed, Turn { draw: draw << 20, position: 9 })).collect();
            for (values, deviation) in [(starts, 0.02), (turns, 0.005)] {
                let (mean, found) = spread(&values);
                assert!((mean - 1.0).abs() < deviation / 20.0, "{mean}");
                assert!((found / deviation - 1.0).abs() < 0.05, "{found} where {deviation} was asked for");
            }
        }
    }

    #[test]
    fn the_same_draw_is_the_same_factor_and_another_seed_another() {
        let noise = Noise::default();
        assert_eq!(noise.of_start(3, 99), noise.of_start(3, 99));
        assert_ne!(noise.of_start(3, 99), noise.of_start(4, 99));
        assert_ne!(noise.of_start(3, 99), noise.of_start(3, 98));
        let turn = Turn { draw: 99, position: 1 };
        assert_ne!(noise.of_start(3, 99) - 1.0, (noise.of_turn(3, turn) - 1.0) * 4.0, "no number is used twice");
        assert_eq!(noise.of_turn(3, turn), noise.of_turn(3, Turn { position: 40, ..turn }), "without drift");
        // The value itself: the same on every machine and in every release.
        assert_eq!(format!("{:.12}", noise.of_start(0, 0x0123_4567_89ab_cdef)), "1.047232625368");
    }

    #[test]
    fn without_noise_nothing_varies_and_drift_grows_with_the_position() {
        assert_eq!((NONE.of_start(1, 2), NONE.of_turn(1, Turn { draw: 3, position: 50 })), (1.0, 1.0));
        let noise = Noise { drift: 0.01, ..NONE };
        let at = |position| noise.of_turn(0, Turn { draw: 0, position });
        assert_eq!((at(0), at(1), at(11), at(1_000_000)), (1.0, 1.0, 1.1, 10.0));
        let faster = Noise { drift: -0.1, ..NONE };
        assert_eq!(faster.of_turn(0, Turn { draw: 0, position: 5000 }), 0.1);
    }

    #[test]
    fn outliers_are_as_many_as_asked() {
        let noise = Noise { outliers: 0.1, ..NONE };
        let starts: Vec<f64> = (0..2000).map(|draw| noise.of_start(1, draw)).collect();
        let slow = starts.iter().filter(|factor| **factor == OUTLIER).count();
        assert!((150..250).contains(&slow) && starts.iter().all(|factor| [1.0, OUTLIER].contains(factor)), "{slow}");
    }

    #[test]
    fn parts_are_percentages_or_fractions() {
        assert_eq!((parse_noise("2%"), parse_noise(" 0.02 "), parse_noise("0")), (Ok(0.02), Ok(0.02), Ok(0.0)));
        assert_eq!((parse_drift("-0.5 %"), parse_outliers("100%")), (Ok(-0.005), Ok(1.0)));
        for text in ["2", "26%", "-1%", "nan", "inf", "", "%", "x"] {
            let error = parse_noise(text).unwrap_err().to_string();
            assert!(error.contains("a part from 0 to 25 %"), "{text}: {error}");
        }
        assert!(parse_drift("11%").is_err() && parse_outliers("101%").is_err());
    }

    #[test]
    fn a_load_of_a_plan_says_which_it_is() {
        let of = |draw: Option<&'static str>, position: Option<&'static str>| {
            Turn::of(move |name| if name == Turn::DRAW { draw } else { position })
        };
        assert_eq!(of(Some("ff"), Some("3")), Some(Turn { draw: 255, position: 3 }));
        assert_eq!(of(Some("ff"), None), Some(Turn { draw: 255, position: 1 }));
        assert_eq!((of(None, Some("3")), of(Some("zz"), None)), (None, None));
    }
}
