//! Replays golden cases from the file named by the environment variable `CASES` at compile time.
#![cfg_attr(target_os = "none", no_std, no_main)]

use bitstep_firmware::{board, replay};

bitstep_firmware::firmware!(run);

fn run() -> bool {
    board::start_heap();
    let result = replay::all(include_bytes!(env!("CASES")), |id, sum| {
        board::print_words(id, [(sum >> 32) as u32, sum as u32]);
    });
    if let Err(e) = &result {
        board::print(e);
        board::print("\n");
    }
    result.is_ok()
}
