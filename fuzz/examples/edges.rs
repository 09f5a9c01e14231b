//! Writes `docs/edge-cases.md`: `cargo run -p bitstep-fuzz --example edges`.

fn main() -> std::io::Result<()> {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/edge-cases.md");
    std::fs::write(page, bitstep_fuzz::edge_case_table())
}
