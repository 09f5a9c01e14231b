//! The committed edge-case table is up to date.

#[test]
fn edge_atlas_is_current() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/edge-cases.md");
    let page = std::fs::read_to_string(page).expect("docs/edge-cases.md");
    let now = bitstep_fuzz::edge_case_table();
    let differs = page.lines().zip(now.lines()).find(|(page, now)| page != now);
    assert_eq!(differs, None, "run `cargo run -p bitstep-fuzz --example edges`");
    assert_eq!(page.len(), now.len(), "run `cargo run -p bitstep-fuzz --example edges`");
}
