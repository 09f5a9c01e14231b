//! The committed header is what the code says. `BITSTEP_RENEW=1` writes it anew.

use std::path::Path;

#[test]
fn header_is_up_to_date() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(here.join("cbindgen.toml")).expect("cbindgen.toml");
    let bindings = cbindgen::Builder::new()
        .with_crate(here)
        .with_config(config)
        .generate()
        .expect("a header can be made");
    let mut wanted = Vec::new();
    bindings.write(&mut wanted);
    let path = here.join("include/bitstep.h");
    if std::env::var_os("BITSTEP_RENEW").is_some() {
        std::fs::write(&path, &wanted).expect("the header can be written");
    }
    let committed = std::fs::read(&path).expect("the header");
    assert!(
        committed == wanted,
        "include/bitstep.h is out of date: `BITSTEP_RENEW=1 cargo test -p bitstep-capi --test header`"
    );
}
