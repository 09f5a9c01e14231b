//! Prints a hash of a long free run of every optimizer in f64, f32, bf16 and f16.
#![cfg_attr(target_os = "none", no_std, no_main)]

use bitstep_firmware::{board, hash_runs};

bitstep_firmware::firmware!(run);

fn run() -> bool {
    board::start_heap();
    hash_runs::all(|name, hashes| {
        let words = hashes.into_iter().flat_map(|h| [(h >> 32) as u32, h as u32]);
        board::print_words(name, words);
    })
}
