//! What devices, host and server did in the course of a measurement. Pure.

/// One moment of a series of samples; what was not told is absent.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Moment {
    /// Seconds since the first sample.
    pub at: f64,
    /// Power of all devices together, watts.
    pub power_w: Option<f64>,
    /// How busy the devices are, mean over them, percent.
    pub utilization_pct: Option<f64>,
    /// Temperature of the warmest device, degrees Celsius.
    pub temperature_c: Option<f64>,
    /// Clock, mean over devices, MHz.
    pub clock_mhz: Option<f64>,
    /// Processors of the server, percent; 100 is one core.
    pub server_cpu_pct: Option<f64>,
    /// Requests that the server works on.
    pub running: Option<f64>,
    /// Tokens that the server has generated since it started.
    pub generated: Option<f64>,
}

/// Output tokens per second between each two moments, at the later one. None where the server was started anew or does not count.
pub fn token_rate(moments: &[Moment]) -> Vec<(f64, f64)> {
    let rate = |pair: &[Moment]| {
        let [before, after] = pair else { return None };
        let (tokens, seconds) = (after.generated? - before.generated?, after.at - before.at);
        (tokens >= 0.0 && seconds > 0.0).then(|| (after.at, tokens / seconds))
    };
    moments.windows(2).filter_map(rate).collect()
}
