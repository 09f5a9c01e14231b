//! usage: bindgen TARGET MODULE.wasm FOLDER NAME: writes the bindings of a module, for `web` or `no-modules`.
//!
//! The command `wasm-bindgen` does the same, and takes minutes longer to build: it brings servers and drivers of browsers.

use wasm_bindgen_cli_support::Bindgen;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [target, module, folder, name] = &args[..] else {
        return Err("usage: bindgen (web | no-modules) MODULE.wasm FOLDER NAME".into());
    };
    let mut bindgen = Bindgen::new();
    match target.as_str() {
        "web" => bindgen.web(true)?,
        "no-modules" => bindgen.no_modules(true)?,
        _ => return Err(format!("`{target}`: web or no-modules").into()),
    };
    // A package's script loads the module that lies beside it.
    bindgen.omit_default_module_path(target != "web");
    bindgen.remove_name_section(true).remove_producers_section(true);
    bindgen.input_path(module).out_name(name).typescript(target == "web").generate(folder)?;
    Ok(())
}
