//! From values to places on an axis, and the numbers written beside it.

/// How an axis counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counting {
    /// Equal steps.
    Linear,
    /// Equal factors, powers of two.
    Log2,
    /// Equal factors, powers of ten.
    Log10,
}

/// A part of the number line on an axis.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scale {
    counting: Counting,
    low: f64,
    high: f64,
}

/// A place on an axis with its label.
#[derive(Debug, Clone, PartialEq)]
pub struct Tick {
    /// Where.
    pub at: f64,
    /// What is written there.
    pub label: String,
}

/// What the steps of a linear axis begin with.
const NICE: [f64; 3] = [1.0, 2.0, 5.0];
/// What the values of an axis of powers of ten begin with, where it has fewer decades than this.
const DIGITS: [(f64, &[f64]); 3] =
    [(1.5, &[1.0, 2.0, 3.0, 5.0, 7.0]), (4.0, &[1.0, 2.0, 5.0]), (f64::INFINITY, &[1.0])];

/// Beyond this no metric of a benchmark lies; differences of larger numbers could overflow.
const LARGEST: f64 = 1e150;

impl Scale {
    /// A scale that holds all these values (what is not finite is left out), with a little air. `zero`: it begins at zero where no
    /// value is negative. A logarithmic scale of values that are not all positive is linear.
    pub fn of(counting: Counting, values: impl IntoIterator<Item = f64>, zero: bool) -> Self {
        let values = values.into_iter().filter(|value| value.is_finite()).map(|v| v.clamp(-LARGEST, LARGEST));
        let (mut low, mut high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        if low > high {
            (low, high) = (0.0, 1.0);
        }
        // The quotient of its ends must be a number.
        let counting = if low > 1.0 / LARGEST { counting } else { Counting::Linear };
        match counting {
            Counting::Linear => {
                if zero && low >= 0.0 {
                    low = 0.0;
                }
                if zero && high <= 0.0 {
                    high = 0.0;
                }
                let span = high - low;
                let air = if span > 0.0 { span } else { (high.abs() * 0.2).max(f64::MIN_POSITIVE * 1e20) } * 0.05;
                let air = if span == 0.0 && high == 0.0 { 0.5 } else { air };
                let low = if zero && low == 0.0 { low } else { low - air };
                let high = if zero && high == 0.0 && low < 0.0 { high } else { high + air };
                Self { counting, low, high }
            }
            Counting::Log2 | Counting::Log10 => {
                let air = (high / low).powf(0.04).max(1.12);
                Self { counting, low: low / air, high: high * air }
            }
        }
    }

    /// Exactly from one value to another.
    pub fn exact(low: f64, high: f64) -> Self {
        Self { counting: Counting::Linear, low, high }
    }

    /// How it counts.
    pub fn counting(&self) -> Counting {
        self.counting
    }

    /// Its ends.
    pub fn ends(&self) -> (f64, f64) {
        (self.low, self.high)
    }

    /// The place of a value: 0 at the lower end, 1 at the upper one; what lies beyond an end stands there.
    pub fn at(&self, value: f64) -> f64 {
        if value.is_nan() {
            return 0.0;
        }
        let value = value.clamp(self.low, self.high);
        let part = match self.counting {
            Counting::Linear => (value - self.low) / (self.high - self.low),
            Counting::Log2 | Counting::Log10 => (value / self.low).ln() / (self.high / self.low).ln(),
        };
        if part.is_finite() { part.clamp(0.0, 1.0) } else { 0.0 }
    }

    /// Round values within it, about as many as wanted.
    pub fn ticks(&self, wanted: usize) -> Vec<Tick> {
        let wanted = wanted.max(2);
        let values = match self.counting {
            Counting::Linear => self.linear(wanted),
            Counting::Log2 => self.powers(2.0, &[1.0], wanted),
            Counting::Log10 => {
                let decades = (self.high / self.low).log10();
                let digits = DIGITS.iter().find(|(most, _)| decades < *most).map_or(&[1.0][..], |(_, digits)| digits);
                self.powers(10.0, digits, wanted * 2)
            }
        };
        // A narrow part of a logarithmic axis may hold no power at all.
        if values.len() >= 2 && self.counting != Counting::Linear {
            // Each is a round number by itself; the smallest step says nothing of the largest.
            return values.into_iter().map(|at| Tick { at, label: with_decimals(at, 6, true) }).collect();
        }
        let values = if values.len() < 2 { self.linear(wanted) } else { values };
        let step = values.windows(2).map(|pair| pair[1] - pair[0]).fold(f64::INFINITY, f64::min);
        values.into_iter().map(|at| Tick { at, label: with_step(at, step) }).collect()
    }

    fn linear(&self, wanted: usize) -> Vec<f64> {
        let step = nice_step((self.high - self.low) / wanted as f64);
        if !(step.is_finite() && step > 0.0) {
            return vec![self.low];
        }
        let first = (self.low / step).ceil();
        let values: Vec<f64> = (0..=wanted.saturating_mul(3) + 2)
            .map(|i| (first + i as f64) * step)
            .take_while(|value| *value <= self.high + step * 1e-9)
            .map(|value| if value.abs() < step * 1e-9 { 0.0 } else { value })
            .collect();
        if values.is_empty() { vec![self.low] } else { values }
    }

    fn powers(&self, base: f64, digits: &[f64], wanted: usize) -> Vec<f64> {
        let exponents = (self.low.log(base).floor() as i64, self.high.log(base).ceil() as i64);
        let span = usize::try_from(exponents.1 - exponents.0).unwrap_or(0) + 1;
        let every = span.div_ceil(wanted).max(1);
        (exponents.0..=exponents.1)
            .step_by(every)
            .flat_map(|exponent| digits.iter().map(move |digit| digit * base.powf(exponent as f64)))
            .filter(|value| *value >= self.low && *value <= self.high)
            .collect()
    }
}

/// 1, 2 or 5 times a power of ten, not below this.
fn nice_step(rough: f64) -> f64 {
    if !(rough.is_finite() && rough > 0.0) {
        return f64::NAN;
    }
    let power = 10f64.powf(rough.log10().floor());
    let digit = rough / power;
    power * NICE.into_iter().find(|nice| digit <= nice * (1.0 + 1e-9)).unwrap_or(10.0)
}

/// A number beside others that differ from it by at least `step`.
fn with_step(value: f64, step: f64) -> String {
    with_decimals(value, decimals_of(step), false)
}

/// Decimals of numbers that differ by at least `step`.
fn decimals_of(step: f64) -> usize {
    if step.is_finite() && step > 0.0 { (-step.log10().floor()).clamp(0.0, 6.0) as usize } else { 0 }
}

/// What axes between two numbers above 0 choose from, for a reader that draws them itself: the round steps of linear ones with the
/// decimals of their labels, and the values of those that count in powers of ten, with the decades that each list is for.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Round {
    steps: Vec<(f64, usize)>,
    /// `None` = for any number of decades.
    powers: Vec<(Option<f64>, Vec<f64>)>,
}

impl Round {
    /// Between these.
    pub fn between(low: f64, high: f64) -> Self {
        let ends = (low.log10().floor() as i32, high.log10().ceil() as i32);
        // As a text, so that it is the nearest number to what is meant.
        let all = |digits: &[f64]| -> Vec<f64> {
            let number = |exponent: i32, digit: &f64| format!("{digit}e{exponent}").parse().unwrap_or(f64::NAN);
            (ends.0..=ends.1).flat_map(|exponent| digits.iter().map(move |digit| number(exponent, digit))).collect()
        };
        Self {
            steps: all(&NICE).into_iter().map(|step| (step, decimals_of(step))).collect(),
            powers: DIGITS.map(|(most, digits)| (Some(most).filter(|most| most.is_finite()), all(digits))).into(),
        }
    }
}

/// A number with so many decimals, or up to so many without zeros at the end; very large and very small ones with a power.
fn with_decimals(value: f64, decimals: usize, trimmed: bool) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    if value.abs() >= 1e7 || value.abs() < 1e-4 {
        let text = format!("{value:.2e}");
        let (digits, power) = text.split_once('e').unwrap_or((&text, "0"));
        return format!("{}e{power}", without_zeros(digits.to_owned()));
    }
    let text = separated(value, decimals);
    if trimmed { without_zeros(text) } else { text }
}

/// Without zeros at the end of the decimals.
fn without_zeros(text: String) -> String {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// With separators between thousands: `12,800`.
pub fn separated(value: f64, decimals: usize) -> String {
    let text = format!("{:.decimals$}", value.abs());
    let (whole, rest) = text.split_once('.').map_or((text.as_str(), ""), |(whole, rest)| (whole, rest));
    let mut out = String::new();
    if value < 0.0 && text.bytes().any(|b| b.is_ascii_digit() && b != b'0') {
        out.push('-');
    }
    for (i, digit) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    if !rest.is_empty() {
        out.push('.');
        out.push_str(rest);
    }
    out
}

/// A number by itself: three digits or more, separators, no more decimals than it deserves.
pub fn short(value: f64) -> String {
    if !value.is_finite() {
        return "n/a".to_owned();
    }
    if value == 0.0 {
        return "0".to_owned();
    }
    // Small times and shares without powers of ten: they are easily missed.
    if value.abs() >= 1e7 || value.abs() < 1e-9 {
        return format!("{value:.2e}");
    }
    let decimals = (2.0 - value.abs().log10().floor()).clamp(0.0, 11.0) as usize;
    without_zeros(separated(value, decimals))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn labels(scale: Scale, wanted: usize) -> Vec<String> {
        scale.ticks(wanted).into_iter().map(|tick| tick.label).collect()
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(labels(Scale::of(Counting::Linear, [0.0, 12_000.0], true), 5), ["0", "5,000", "10,000"]);
        assert_eq!(labels(Scale::of(Counting::Linear, [0.0, 0.04], true), 4), ["0", "0.02", "0.04"]);
        assert_eq!(labels(Scale::of(Counting::Log2, [1.0, 32.0], false), 8), ["1", "2", "4", "8", "16", "32"]);
        assert_eq!(labels(Scale::of(Counting::Log10, [10.0, 9000.0], false), 4).first().unwrap(), "10");
        let wide = labels(Scale::of(Counting::Log2, [1.177_909_885_057_228_2e-16, 1e9], false), 9);
        assert!(wide.contains(&"1,048,576".to_owned()), "{wide:?}");
        assert_eq!(labels(Scale::of(Counting::Linear, [1e12, 2e12], true), 3), ["0", "1e12", "2e12"]);
        assert_eq!(labels(Scale::of(Counting::Log2, [0.25, 2.0], false), 8), ["0.25", "0.5", "1", "2"]);
        assert_eq!(
            labels(Scale::of(Counting::Log10, [1e-3, 1e6], false), 5),
            ["0.01", "1", "100", "10,000", "1,000,000"]
        );
    }

    #[test]
    fn a_reader_that_draws_axes_itself_chooses_from_the_same_steps() {
        let Round { steps, powers } = Round::between(0.02, 3.0);
        assert_eq!(
            steps,
            [
                (0.01, 2),
                (0.02, 2),
                (0.05, 2),
                (0.1, 1),
                (0.2, 1),
                (0.5, 1),
                (1.0, 0),
                (2.0, 0),
                (5.0, 0),
                (10.0, 0),
                (20.0, 0),
                (50.0, 0)
            ]
        );
        assert_eq!(
            powers.iter().map(|(most, all)| (*most, all.len())).collect::<Vec<_>>(),
            [(Some(1.5), 20), (Some(4.0), 12), (None, 4)]
        );
        for wanted in [2, 5, 9] {
            for high in [0.3, 1.0, 2.9] {
                let ticks = Scale::exact(0.0, high).ticks(wanted);
                let chosen = steps.iter().find(|(step, _)| high / wanted as f64 <= step * (1.0 + 1e-9)).unwrap().0;
                assert!((ticks[1].at - ticks[0].at - chosen).abs() < 1e-9, "{ticks:?} {chosen}");
            }
        }
    }

    #[test]
    fn numbers_by_themselves_are_short() {
        for (value, text) in [
            (0.0, "0"),
            (12_345.678, "12,346"),
            (1.5, "1.5"),
            (0.012_345, "0.0123"),
            (99.96, "100"),
            (-3.0, "-3"),
            (8.62e-7, "0.000000862"),
            (1e-10, "1.00e-10"),
            (1e9, "1.00e9"),
            (f64::NAN, "n/a"),
        ] {
            assert_eq!(short(value), text);
        }
        assert_eq!(separated(-0.0, 0), "0");
        assert_eq!(separated(1_234_567.0, 1), "1,234,567.0");
    }

    fn any_value() -> impl Strategy<Value = f64> {
        prop_oneof![
            proptest::num::f64::ANY,
            -10.0f64..10.0,
            (-9i32..13).prop_map(|power| 10f64.powi(power)),
            Just(0.0),
            Just(f64::MAX)
        ]
    }

    proptest! {
        #[test]
        fn any_values_have_a_scale_with_ticks_in_it(
            values in proptest::collection::vec(any_value(), 0..20), zero: bool, wanted in 0usize..15,
            counting in prop_oneof![Just(Counting::Linear), Just(Counting::Log2), Just(Counting::Log10)],
        ) {
            let scale = Scale::of(counting, values.iter().copied(), zero);
            let (low, high) = scale.ends();
            prop_assert!(low.is_finite() && high.is_finite() && low <= high);
            for value in values {
                prop_assert!((0.0..=1.0).contains(&scale.at(value)));
            }
            let ticks = scale.ticks(wanted);
            prop_assert!(!ticks.is_empty() && ticks.len() < 100);
            for pair in ticks.windows(2) {
                prop_assert!(pair[0].at < pair[1].at, "{ticks:?}");
            }
            for tick in &ticks {
                prop_assert!(tick.label.len() < 16, "{tick:?}");
                prop_assert!(tick.label != "NaN" && !tick.label.contains("inf"));
            }
        }

        #[test]
        fn order_is_kept(mut values in proptest::collection::vec(1e-9f64..1e12, 2..20)) {
            values.sort_by(f64::total_cmp);
            for counting in [Counting::Linear, Counting::Log2, Counting::Log10] {
                let scale = Scale::of(counting, values.iter().copied(), false);
                for pair in values.windows(2) {
                    prop_assert!(scale.at(pair[0]) <= scale.at(pair[1]));
                }
            }
        }
    }
}
