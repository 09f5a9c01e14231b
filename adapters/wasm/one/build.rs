//! Names the rule of the module: the environment variable `BITSTEP_RULE`, a type of `bitstep::optim`.

use std::{env, fs, path::Path};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-env-changed=BITSTEP_RULE");
    println!("cargo::rerun-if-changed=build.rs");
    let rule = env::var("BITSTEP_RULE").unwrap_or_else(|_| "AdamW".into());
    let text = format!("/// The rule of this module.\ntype Rule = bitstep::optim::{rule};\n");
    fs::write(Path::new(&env::var("OUT_DIR")?).join("rule.rs"), text)?;
    Ok(())
}
