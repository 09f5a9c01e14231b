//! Selects the memory layout of the target board and the linker scripts of its runtime.

use std::path::PathBuf;
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=BOARD");
    println!("cargo::rustc-check-cfg=cfg(microbit)");
    if env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("none") {
        return;
    }
    let memory = match env::var("BOARD").as_deref() {
        Ok("mps2-an386") => {
            "MEMORY { FLASH : ORIGIN = 0x00000000, LENGTH = 4M
                      RAM : ORIGIN = 0x20000000, LENGTH = 4M }"
        }
        Ok("microbit") => {
            "MEMORY { FLASH : ORIGIN = 0x00000000, LENGTH = 256K
                      RAM : ORIGIN = 0x20000000, LENGTH = 16K }"
        }
        Ok("virt") => {
            "MEMORY { FLASH : ORIGIN = 0x80000000, LENGTH = 8M
                      RAM : ORIGIN = 0x80800000, LENGTH = 8M }
             REGION_ALIAS(\"REGION_TEXT\", FLASH);
             REGION_ALIAS(\"REGION_RODATA\", FLASH);
             REGION_ALIAS(\"REGION_DATA\", RAM);
             REGION_ALIAS(\"REGION_BSS\", RAM);
             REGION_ALIAS(\"REGION_HEAP\", RAM);
             REGION_ALIAS(\"REGION_STACK\", RAM);"
        }
        other => panic!("BOARD is {other:?}; wanted mps2-an386, microbit or virt"),
    };
    if env::var("BOARD").as_deref() == Ok("microbit") {
        println!("cargo::rustc-cfg=microbit");
    }
    let out = PathBuf::from(env::var("OUT_DIR").expect("cargo sets OUT_DIR"));
    fs::write(out.join("memory.x"), memory).expect("OUT_DIR can be written");
    println!("cargo::rustc-link-search={}", out.display());
    if env::var("CARGO_CFG_TARGET_ARCH").as_deref() == Ok("riscv32") {
        println!("cargo::rustc-link-arg-bins=-Tmemory.x");
    }
    println!("cargo::rustc-link-arg-bins=-Tlink.x");
}
