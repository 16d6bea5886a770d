//! The checks of the fuzz targets, without a nightly compiler.

#[path = "../../tests/seeds/mod.rs"]
mod seeds;
#[path = "../fuzz/src/lib.rs"]
pub mod targets;

#[test]
fn every_seed_passes() {
    seeds::replay(env!("CARGO_MANIFEST_DIR"), targets::TARGETS);
}
