//! Lists the golden vectors and the exporter's files, so that a program that is installed has them.

#[cfg(feature = "vectors")]
use std::{
    env,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "vectors")]
    {
        let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo's"));
        let checkout = here.join("golden");
        // Of a checkout the vectors as they are; of a package those of the packages beside it.
        let golden = if checkout.is_dir() {
            vec![checkout]
        } else {
            vec![bitstep_golden_a_f::FOLDER.into(), bitstep_golden_g_z::FOLDER.into()]
        };
        let list = table("GOLDEN", &golden) + &table("EXPORTER", &[here.join("export")]);
        let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo's"));
        fs::write(out.join("built_in.rs"), list).expect("the folder is cargo's");
    }
}

/// A table of the files below these folders, sorted: path from the folder, bytes.
#[cfg(feature = "vectors")]
fn table(name: &str, folders: &[PathBuf]) -> String {
    let mut files = Vec::new();
    for folder in folders {
        println!("cargo::rerun-if-changed={}", folder.display());
        walk(folder, folder, &mut files);
    }
    files.sort();
    let mut out = format!("pub(super) static {name}: &[(&str, &[u8])] = &[\n");
    for (inside, path) in files {
        writeln!(out, "({inside:?}, include_bytes!({path:?})),").expect("a string");
    }
    out + "];\n"
}

#[cfg(feature = "vectors")]
fn walk(root: &Path, folder: &Path, files: &mut Vec<(String, PathBuf)>) {
    for entry in fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
        let path = entry.expect("a folder's entry").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        // Environments and what Python leaves behind are nobody's source.
        if name.starts_with('.') || name == "__pycache__" {
            continue;
        }
        if path.is_dir() {
            walk(root, &path, files);
        } else {
            let inside = path.strip_prefix(root).expect("it lies below");
            let inside: Vec<_> = inside.iter().map(|part| part.to_string_lossy()).collect();
            files.push((inside.join("/"), path));
        }
    }
}
