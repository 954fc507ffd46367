//! Workers killed at every point at which one can die, on the real maps of a real estate, while real
//! clients connect through its programs. They need root, and fail without it.
//!
//! - `updates`: what is being put in force when they die.
//! - `dying`: workers that die after a given number of words.
//! - `handed`: the estate, and the workers that take over.
//! - `verdict`: whether what is left is whole, and what the next worker leaves exact.
//! - `clients`: connections, every one judged.
//! - `points`, `figures`: every point, and what was found there.
//! - `mistakes`: writers that are wrong, which all of this has to find out.

mod clients;
mod dying;
#[expect(dead_code, reason = "shared with the tests of `serve`, which look into the maps as well")]
#[path = "../serve/estate.rs"]
mod estate;
mod figures;
mod handed;
#[expect(dead_code, reason = "shared with the tests of the loader, which also clear and kill")]
#[path = "../loader/supervisor.rs"]
mod loading;
mod mistakes;
mod points;
#[expect(dead_code, reason = "shared with the tests of `serve`, which try the whole conversation")]
#[path = "../serve/supervisor.rs"]
mod serving;
mod updates;
mod verdict;
mod world;

use holdfast_lab::isolated;

use crate::mistakes::Mistake;
use crate::points::Laboratory;

/// Where the figures are left for whoever runs the tests: what happens in a lab prints to its log.
const FIGURES: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/crash-points.txt");

#[test]
fn a_writer_that_dies_at_any_point_leaves_every_service_whole_and_its_successor_repairs_all() {
    isolated(|lab| {
        let figures = Laboratory::new(lab).try_every_point()?;
        std::fs::write(FIGURES, figures.to_string())?;
        figures.check();
        Ok(())
    });
    println!("{}", std::fs::read_to_string(FIGURES).expect("written inside"));
}

/// The test above can fail: a writer that does the same in a wrong order is found out, by the maps
/// and by connections.
#[test]
fn a_wrong_order_is_found_out() {
    isolated(|lab| {
        let mut laboratory = Laboratory::new(lab);
        for mistake in Mistake::ALL {
            let figures = laboratory.try_mistake(mistake)?;
            assert!(figures.torn > 0, "{mistake:?}: {figures}");
            assert_eq!(figures.troubled > 0, mistake.is_felt_by_connections(), "{figures}");
        }
        Ok(())
    });
}

/// And so is one that leaves something over.
#[test]
fn leftovers_are_found_out() {
    isolated(|lab| {
        let (exact, leaks) = Laboratory::new(lab).try_untidy();
        assert!(!exact && !leaks.is_empty(), "{leaks:?}");
        Ok(())
    });
}
