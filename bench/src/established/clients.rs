//! What the clients print.

use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};

use super::Quantity;

/// What wrk is asked to print, because by itself it knows no 99.9th percentile.
pub const SCRIPT: &str = "done = function(summary, latency, requests)\n  \
    local e = summary.errors\n  \
    io.write(string.format(\"measured %d %d %d %d %d %d\\n\", summary.requests, summary.duration,\n    \
    latency:percentile(50), latency:percentile(99), latency:percentile(99.9),\n    \
    e.connect + e.read + e.write + e.status + e.timeout))\nend\n";

/// What a client prints that ends well.
pub fn output(mut command: Command) -> anyhow::Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("cannot run {program}: run tools/setup"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} failed: {text}{complaint}");
    Ok(text)
}

/// The line of [`SCRIPT`].
pub fn wrk_figures(text: &str) -> anyhow::Result<Vec<(Quantity, f64)>> {
    let line = text.lines().find_map(|line| line.strip_prefix("measured "));
    let numbers = line.unwrap_or_default().split(' ').map(str::parse::<f64>);
    let numbers = numbers.collect::<Result<Vec<f64>, _>>();
    let Ok([requests, duration_us, p50, p99, p999, errors]) = numbers.as_deref() else {
        bail!("wrk printed no figures: {text}");
    };
    ensure!(*errors == 0.0 && *requests > 0.0, "wrk met {errors} errors: {text}");
    Ok(vec![
        (Quantity::Rate, requests * 1e6 / duration_us),
        (Quantity::P50, *p50),
        (Quantity::P99, *p99),
        (Quantity::P999, *p999),
    ])
}

/// `"test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95…","p99…","max…"`.
pub fn redis_figures(text: &str) -> anyhow::Result<Vec<(Quantity, f64)>> {
    let line = text.lines().find(|line| line.starts_with("\"GET\"")).unwrap_or_default();
    let cells = line.split(',').skip(1).map(|cell| cell.trim_matches('"').parse::<f64>());
    let cells = cells.collect::<Result<Vec<f64>, _>>();
    let Ok([rate, _mean, _least, p50_ms, _p95, p99_ms, _most]) = cells.as_deref() else {
        bail!("redis-benchmark printed no figures: {text}");
    };
    Ok(vec![(Quantity::Rate, *rate), (Quantity::P50, p50_ms * 1e3), (Quantity::P99, p99_ms * 1e3)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_clients_print_is_understood() -> anyhow::Result<()> {
        let found = wrk_figures("Running…\nmeasured 1000 500000 20 30 400 0\n")?;
        assert_eq!(found[0], (Quantity::Rate, 2_000.0));
        assert_eq!(found[3], (Quantity::P999, 400.0));
        let csv = "\"test\",\"rps\",\"avg_latency_ms\",\"min_latency_ms\",\"p50_latency_ms\",\
            \"p95_latency_ms\",\"p99_latency_ms\",\"max_latency_ms\"\n\
            \"GET\",\"746268.62\",\"0.145\",\"0.048\",\"0.143\",\"0.191\",\"0.239\",\"0.511\"\n";
        assert_eq!(redis_figures(csv)?[2], (Quantity::P99, 239.0));
        Ok(())
    }

    #[test]
    fn a_client_that_met_an_error_measured_nothing() {
        wrk_figures("measured 1000 500000 20 30 400 3\n").expect_err("three requests failed");
        wrk_figures("nothing").expect_err("no figures");
        redis_figures("Could not connect\n").expect_err("no figures");
    }
}
