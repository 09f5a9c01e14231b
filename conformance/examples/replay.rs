//! `replay CASES`: runs the cases that `pack` has written on this machine, for comparison with the firmware.

extern crate alloc;

#[allow(unreachable_pub)] // elsewhere it is a library's
#[path = "../firmware/src/replay.rs"]
mod replay;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cases = std::env::args().nth(1).ok_or("usage: replay CASES")?;
    replay::all(&std::fs::read(cases)?, |id, sum| {
        println!("{id} {:08x} {:08x}", (sum >> 32) as u32, sum as u32);
    })?;
    Ok(())
}
