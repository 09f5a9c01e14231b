//! Prints the names that the C interface accepts, one a line: optimizers, an empty line, schedules.

fn main() {
    bitstep::registry::OPTIMIZERS.iter().for_each(|entry| println!("{}", entry.name));
    println!();
    bitstep::schedule::NAMES.iter().for_each(|name| println!("{name}"));
}
