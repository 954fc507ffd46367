//! Connections are spread over the endpoints as configured: tested by chi-square, not by wish.

use std::collections::BTreeMap;
use std::time::Duration;

use holdfast_lab::load::Shape;
use holdfast_lab::{Backend, Lab, Load, Service, Target, TestResult, eventually, isolated};

use crate::scene::{WEB, serve};

/// Connections per test. A third too many or too few at the rarest of ten shares is then more than
/// ten standard deviations away.
const CONNECTIONS: u64 = 20_000;

/// Probability that a right spread is called wrong: one false alarm in ten million runs.
const FALSE_ALARM: f64 = 1e-7;

const NAMES: [&str; 3] = ["red", "green", "blue"];

/// The probability of a chi-square value of at least `statistic` with two degrees of freedom, where
/// it has a closed form: three endpoints are what these tests use.
fn tail(statistic: f64) -> f64 {
    (-statistic / 2.0).exp()
}

/// Pearson's statistic of what was counted against what `weights` promise.
#[expect(clippy::cast_precision_loss, reason = "counts here are far below 2^52")]
fn chi_square(counted: &BTreeMap<String, u64>, weights: [u16; 3]) -> f64 {
    let total = counted.values().sum::<u64>() as f64;
    let sum = f64::from(weights.iter().sum::<u16>());
    let terms = NAMES.iter().zip(weights).map(|(name, weight)| {
        let expected = total * f64::from(weight) / sum;
        let found = counted.get(*name).copied().unwrap_or(0) as f64;
        (found - expected).powi(2) / expected
    });
    terms.sum()
}

fn assert_spread(
    lab: &Lab,
    weights: [u16; 3],
    service: impl Fn(&[Backend]) -> Service,
) -> TestResult {
    let backends = NAMES.map(Backend::tcp).into_iter().collect::<Result<Vec<_>, _>>()?;
    let _supervisor = serve(lab, &[service(&backends)])?;
    let shape = Shape { clients: 2, rest: Duration::ZERO, seed: 0 };
    let load = Load::start(&[Target::tcp(WEB, &NAMES)], shape);
    eventually("enough connections", || match load.so_far().connections() {
        CONNECTIONS.. => Ok(()),
        fewer => Err(fewer),
    })?;
    let tally = load.finish();
    assert_eq!((tally.failed, tally.ungoverned), (0, 0), "{tally:?}");
    let statistic = chi_square(&tally.by_backend, weights);
    assert!(tail(statistic) > FALSE_ALARM, "{:?}: chi-square {statistic}", tally.by_backend);
    Ok(())
}

#[test]
fn the_statistic_tells_a_wrong_spread_from_a_right_one() {
    let counted = |counts: [u64; 3]| NAMES.map(str::to_owned).into_iter().zip(counts).collect();
    let right = chi_square(&counted([2_020, 3_950, 14_030]), [1, 2, 7]);
    assert!(tail(right) > 0.1, "{right}");
    let wrong = chi_square(&counted([2_200, 4_200, 13_600]), [1, 2, 7]);
    assert!(tail(wrong) < FALSE_ALARM, "{wrong}");
}

#[test]
fn weighted_follows_the_weights() {
    isolated(|lab| {
        let weights = [1, 2, 7];
        assert_spread(lab, weights, |backends| {
            let endpoints = backends.iter().zip(weights);
            endpoints.fold(Service::tcp("web", WEB), |service, (backend, weight)| {
                service.weighted(backend.v4(), weight)
            })
        })
    });
}

#[test]
fn random_gives_each_the_same() {
    isolated(|lab| {
        assert_spread(lab, [1, 1, 1], |backends| {
            let empty = Service::tcp("web", WEB);
            backends.iter().fold(empty, |service, backend| service.endpoint(backend.v4()))
        })
    });
}

#[test]
fn an_endpoint_of_weight_zero_gets_nothing() {
    isolated(|lab| {
        let (red, blue) = (Backend::tcp("red")?, Backend::tcp("blue")?);
        let service = Service::tcp("web", WEB).weighted(red.v4(), 0).weighted(blue.v4(), 1);
        let _supervisor = serve(lab, &[service])?;
        let blue_only = Target::tcp(WEB, &["blue"]);
        for _ in 0..200 {
            crate::scene::assert_reached(&blue_only);
        }
        Ok(())
    });
}
