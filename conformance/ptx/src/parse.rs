//! Parses text into instructions with registers resolved to indices.

use std::collections::HashMap;

use crate::Error;
use crate::cost::Class;
use crate::memory::Memory;
use crate::ops::{self, Op};

/// A parsed kernel.
pub(crate) struct Kernel {
    pub(crate) name: String,
    /// The number of parameters.
    pub(crate) params: usize,
    pub(crate) registers: usize,
    /// Bytes of local memory per thread.
    pub(crate) local: usize,
    /// Bytes of shared memory per block.
    pub(crate) shared: usize,
    pub(crate) code: Vec<Instruction>,
}

/// A register's index.
pub(crate) type Register = usize;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Operand {
    Register(Register),
    /// A constant, or the address of a global.
    Value(u64),
    Special(Special),
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Special {
    Thread,
    Threads,
    Block,
    Blocks,
}

/// A memory operand: base and offset.
pub(crate) type Address = (Operand, u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Space {
    /// Generic: distinguished by the address.
    Generic,
    Global,
    Local,
}

/// From which lane a shuffle takes a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// That many lanes above.
    Down,
    /// The one whose index differs in these bits.
    Butterfly,
    /// The one of this index.
    Index,
}

pub(crate) enum Action {
    Compute(Op, Register, Vec<Operand>),
    Parameter(Register, usize),
    Load {
        space: Space,
        bytes: usize,
        signed: bool,
        to: Vec<Register>,
        from: Address,
    },
    Store {
        space: Space,
        bytes: usize,
        to: Address,
        from: Vec<Operand>,
    },
    /// Parts of a register, lowest first, this many bits each; `None` for one that is discarded.
    Unpack {
        bits: u32,
        to: Vec<Option<Register>>,
        from: Operand,
    },
    Pack {
        bits: u32,
        to: Register,
        from: Vec<Operand>,
    },
    Shuffle {
        way: Way,
        to: Register,
        from: Operand,
        by: Operand,
    },
    /// All threads of the warp wait for each other.
    Barrier,
    /// Adds one to a number of 32 bits, or sets it to 0 where it is the limit or more; takes what it was.
    Increment {
        to: Register,
        at: Address,
        limit: Operand,
    },
    Branch(usize),
    /// Jumps to the instruction of this index.
    Table(Operand, Vec<usize>),
    Return,
    Trap,
}

pub(crate) struct Instruction {
    pub(crate) line: usize,
    /// The guard: runs in threads where this predicate has this value.
    pub(crate) guard: Option<(Register, bool)>,
    pub(crate) action: Action,
    /// Of an action that computes, else of a branch; that of an access depends on the address.
    pub(crate) class: Class,
}

/// The start of local memory in the generic address space.
pub(crate) const LOCAL: u64 = 1 << 60;
/// The start of shared memory in the generic address space, above local memory.
pub(crate) const SHARED: u64 = 1 << 61;

type Result<T> = std::result::Result<T, Error>;

fn wrong<T>(line: usize, what: impl Into<String>) -> Result<T> {
    Err(Error::Parse { line, what: what.into() })
}

/// Parses all kernels of a module, and puts its global tables into memory.
pub(crate) fn module(text: &str, memory: &mut Memory) -> Result<Vec<Kernel>> {
    let mut tables = HashMap::new();
    let mut kernels = Vec::new();
    let mut lines = text.lines().enumerate().map(|(i, l)| (i + 1, strip(l)));
    while let Some((number, line)) = lines.next() {
        let known = [".version", ".target", ".address_size"];
        if line.is_empty() || known.iter().any(|k| line.starts_with(k)) {
            continue;
        }
        if line.starts_with(".global") {
            let (name, bytes) = table(number, line)?;
            tables.insert(name.to_owned(), memory.alloc(bytes));
        } else if line.starts_with(".visible .entry") {
            let mut head = line.to_owned();
            while !head.contains(')') {
                let Some((_, line)) = lines.next() else { return wrong(number, "no `)`") };
                head.push(' ');
                head.push_str(line);
            }
            let mut body = Body::new(number, &head, &tables)?;
            loop {
                let Some((number, line)) = lines.next() else { return wrong(number, "no `}`") };
                match line {
                    "{" | "" => {}
                    "}" => break,
                    _ => body.line(number, line)?,
                }
            }
            kernels.push(body.finish()?);
        } else {
            return wrong(number, format!("unknown: {line}"));
        }
    }
    Ok(kernels)
}

/// Strips the comment.
pub(crate) fn strip(line: &str) -> &str {
    line.split("//").next().unwrap_or_default().trim()
}

/// Strips an inline scope: `{ .reg .b16 tmp; mov.b32 {tmp, %rs43}, %r64; }`.
pub(crate) fn scoped(line: &str) -> &str {
    let inner = line.strip_prefix("{ .reg").and_then(|l| l.split_once(" tmp;"));
    inner.map_or(line, |(_, inner)| inner.trim_end_matches('}').trim())
}

/// `.global .align 4 .b8 name[n] = {…};`
fn table(number: usize, line: &str) -> Result<(&str, Vec<u8>)> {
    let read = || {
        let (head, list) = line.split_once('=')?;
        let head = head.split_once(".b8")?.1.trim();
        let (name, count) = head.strip_suffix(']')?.split_once('[')?;
        let list = list.trim().strip_prefix('{')?.strip_suffix("};")?;
        let bytes: Option<Vec<u8>> = list.split(',').map(|b| b.trim().parse().ok()).collect();
        bytes.filter(|b| Some(b.len()) == count.parse().ok()).map(|b| (name, b))
    };
    read().map_or_else(|| wrong(number, "a table of bytes is wanted"), Ok)
}

/// A kernel that is being parsed.
struct Body<'a> {
    name: String,
    params: Vec<String>,
    registers: HashMap<String, Register>,
    tables: &'a HashMap<String, u64>,
    local: (String, usize),
    shared: (String, usize),
    labels: HashMap<String, usize>,
    targets: HashMap<String, Vec<String>>,
    /// A list of branch targets that has not ended yet.
    open: Option<String>,
    code: Vec<Instruction>,
    /// Labels of branches, resolved at the end.
    branches: Vec<(usize, Vec<String>)>,
}

impl<'a> Body<'a> {
    fn new(number: usize, head: &str, tables: &'a HashMap<String, u64>) -> Result<Self> {
        let read = || {
            let (name, rest) = head.strip_prefix(".visible .entry")?.split_once('(')?;
            let rest = rest.split_once(')')?.0;
            let params: Option<Vec<String>> = rest
                .split(',')
                .filter(|p| !p.trim().is_empty())
                .map(|p| {
                    let wide = p.contains(".u64") || p.contains(".b64");
                    wide.then(|| p.split_whitespace().next_back().unwrap_or_default().to_owned())
                })
                .collect();
            Some((name.trim().to_owned(), params?))
        };
        let Some((name, params)) = read() else {
            return wrong(number, "a kernel with parameters of 64 bits is wanted");
        };
        Ok(Body {
            name,
            params,
            registers: HashMap::new(),
            tables,
            local: (String::new(), 0),
            shared: (String::new(), 0),
            labels: HashMap::new(),
            targets: HashMap::new(),
            open: None,
            code: Vec::new(),
            branches: Vec::new(),
        })
    }

    fn line(&mut self, number: usize, line: &str) -> Result<()> {
        if let Some(open) = &self.open {
            let list = self.targets.entry(open.clone()).or_default();
            let labels = line.trim_end_matches(';').split(',').map(str::trim);
            list.extend(labels.filter(|l| !l.is_empty()).map(str::to_owned));
            if line.ends_with(';') {
                self.open = None;
            }
            return Ok(());
        }
        if let Some(label) = line.strip_suffix(':') {
            self.labels.insert(label.to_owned(), self.code.len());
            return Ok(());
        }
        if let Some((label, ".branchtargets")) = line.split_once(':').map(|(l, d)| (l, d.trim())) {
            self.open = Some(label.to_owned());
            return Ok(());
        }
        if let Some(rest) = line.strip_prefix(".local") {
            let read = || {
                let (name, bytes) = rest.split_once(".b8")?.1.trim().split_once('[')?;
                Some((name.to_owned(), bytes.strip_suffix("];")?.parse().ok()?))
            };
            let Some(local) = read() else { return wrong(number, "local bytes are wanted") };
            self.local = local;
            return Ok(());
        }
        if let Some(rest) = line.strip_prefix(".shared") {
            let read = || {
                let (name, bytes) = rest.split_once(".b8")?.1.trim().split_once('[')?;
                Some((name.to_owned(), bytes.strip_suffix("];")?.parse().ok()?))
            };
            match read() {
                Some(shared) if self.shared.0.is_empty() => self.shared = shared,
                _ => return wrong(number, "shared bytes are wanted, once"),
            }
            return Ok(());
        }
        if line.starts_with(".reg") || line.starts_with(".pragma") {
            return Ok(());
        }
        let line = scoped(line);
        let Some(text) = line.strip_suffix(';') else {
            return wrong(number, format!("unknown: {line}"));
        };
        let (guard, text) = match text.strip_prefix('@') {
            Some(rest) => {
                let Some((p, text)) = rest.split_once(char::is_whitespace) else {
                    return wrong(number, "a guard of nothing");
                };
                let (name, expected) = p.strip_prefix('!').map_or((p, true), |p| (p, false));
                (Some((self.register(name), expected)), text.trim())
            }
            None => (None, text.trim()),
        };
        let (name, operands) =
            text.split_once(char::is_whitespace).map_or((text, ""), |(n, o)| (n, o.trim()));
        let action = self.action(number, name, &split(operands))?;
        let class = match action {
            Action::Branch(_) | Action::Table(..) | Action::Return | Action::Trap => Class::Branch,
            Action::Shuffle { .. } | Action::Barrier => Class::Shuffle,
            _ => Class::of(name),
        };
        self.code.push(Instruction { line: number, guard, action, class });
        Ok(())
    }

    fn action(&mut self, number: usize, name: &str, operands: &[&str]) -> Result<Action> {
        let unknown = || wrong(number, format!("unknown: {name} {}", operands.join(", ")));
        let parts: Vec<&str> = name.split('.').collect();
        Ok(match (parts.as_slice(), operands) {
            (["ret"], []) => Action::Return,
            (["trap" | "exit"], []) => Action::Trap,
            (["bra"] | ["bra", "uni"], [label]) => {
                self.branches.push((self.code.len(), vec![(*label).to_owned()]));
                Action::Branch(0)
            }
            (["brx", "idx"], [index, list]) => {
                let Some(targets) = self.targets.get(*list) else { return unknown() };
                self.branches.push((self.code.len(), targets.clone()));
                Action::Table(self.operand(number, index)?, Vec::new())
            }
            (["ld", "param", "b64" | "u64"], [to, from]) => {
                let name = from.trim_matches(['[', ']']);
                let Some(at) = self.params.iter().position(|p| p == name) else {
                    return unknown();
                };
                Action::Parameter(self.register(to), at)
            }
            (["ld", rest @ ..], [to, from]) => {
                let Some((space, bytes, signed, count)) = access(rest) else { return unknown() };
                let to: Vec<Register> =
                    list(to).into_iter().map(|name| self.register(name)).collect();
                if to.len() != count {
                    return unknown();
                }
                Action::Load { space, bytes, signed, to, from: self.address(number, from)? }
            }
            (["st", rest @ ..], [to, from]) => {
                let Some((space, bytes, _, count)) = access(rest) else { return unknown() };
                let from: Vec<Operand> = list(from)
                    .into_iter()
                    .map(|o| self.operand(number, o))
                    .collect::<Result<_>>()?;
                if from.len() != count {
                    return unknown();
                }
                Action::Store { space, bytes, to: self.address(number, to)?, from }
            }
            (
                ["shfl", "sync", way @ ("down" | "bfly" | "idx"), "b32"],
                [to, from, by, "0x1f" | "31", all],
            ) => {
                if !matches!(*all, "0xffffffff" | "-1") {
                    return unknown();
                }
                let way = match *way {
                    "down" => Way::Down,
                    "bfly" => Way::Butterfly,
                    _ => Way::Index,
                };
                let (from, by) = (self.operand(number, from)?, self.operand(number, by)?);
                Action::Shuffle { way, to: self.register(to), from, by }
            }
            (["bar", "warp", "sync"], ["0xffffffff" | "-1"]) => Action::Barrier,
            (["atom", "acq_rel", "gpu", "inc", "u32"], [to, at, limit]) => {
                let (at, limit) = (self.address(number, at)?, self.operand(number, limit)?);
                Action::Increment { to: self.register(to), at, limit }
            }
            (["mov", of], [to, from]) if to.starts_with('{') => {
                let names = list(to);
                let Some(bits) = width(of).map(|w| w / names.len() as u32) else {
                    return unknown();
                };
                let to = names.into_iter();
                let to =
                    to.map(|n| (!matches!(n, "tmp" | "_")).then(|| self.register(n))).collect();
                Action::Unpack { bits, to, from: self.operand(number, from)? }
            }
            (["mov", of], [to, from]) if from.starts_with('{') => {
                let parts = list(from);
                let Some(bits) = width(of).map(|w| w / parts.len() as u32) else {
                    return unknown();
                };
                let from =
                    parts.into_iter().map(|o| self.operand(number, o)).collect::<Result<_>>()?;
                Action::Pack { bits, to: self.register(to), from }
            }
            // Global addresses equal generic ones.
            (["cvta", "global", "u64"] | ["cvta", "to", "global", "u64"], [to, from]) => {
                let from = self.operand(number, from)?;
                Action::Compute(Op::One(|a| a), self.register(to), vec![from])
            }
            (["cvta", "local", "u64"], [to, from]) => {
                let from = self.operand(number, from)?;
                Action::Compute(Op::One(|a| a.wrapping_add(LOCAL)), self.register(to), vec![from])
            }
            (["cvta", "shared", "u64"], [to, from]) => {
                let from = self.operand(number, from)?;
                Action::Compute(Op::One(|a| a.wrapping_add(SHARED)), self.register(to), vec![from])
            }
            (["cvta", "to", "local", "u64"], [to, from]) => {
                let from = self.operand(number, from)?;
                Action::Compute(Op::One(|a| a.wrapping_sub(LOCAL)), self.register(to), vec![from])
            }
            (_, [to, from @ ..]) => {
                let Some(op) = ops::op(name) else { return unknown() };
                let arity = match op {
                    Op::One(_) => 1,
                    Op::Two(_) => 2,
                    Op::Three(_) => 3,
                };
                if from.len() != arity || !to.starts_with('%') || to.contains('|') {
                    return unknown();
                }
                let from = from.iter().map(|o| self.operand(number, o)).collect::<Result<_>>()?;
                Action::Compute(op, self.register(to), from)
            }
            _ => return unknown(),
        })
    }

    fn register(&mut self, name: &str) -> Register {
        let next = self.registers.len();
        *self.registers.entry(name.to_owned()).or_insert(next)
    }

    fn operand(&mut self, number: usize, text: &str) -> Result<Operand> {
        Ok(match text {
            "%tid.x" => Operand::Special(Special::Thread),
            "%ntid.x" => Operand::Special(Special::Threads),
            "%ctaid.x" => Operand::Special(Special::Block),
            "%nctaid.x" => Operand::Special(Special::Blocks),
            _ if text.starts_with('%') && !text.contains('.') => {
                Operand::Register(self.register(text))
            }
            _ if text == self.local.0 || text == self.shared.0 => Operand::Value(0),
            _ => match self.tables.get(text).copied().or_else(|| literal(text)) {
                Some(x) => Operand::Value(x),
                None => return wrong(number, format!("unknown: {text}")),
            },
        })
    }

    /// `[%rd1]`, `[%rd1+4]`, `[table+4]`.
    fn address(&mut self, number: usize, text: &str) -> Result<Address> {
        let Some(inner) = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')) else {
            return wrong(number, format!("an address is wanted: {text}"));
        };
        let (base, offset) = inner.split_once('+').unwrap_or((inner, "0"));
        let Some(offset) = literal(offset) else {
            return wrong(number, format!("unknown: {text}"));
        };
        Ok((self.operand(number, base)?, offset))
    }

    fn finish(mut self) -> Result<Kernel> {
        for (at, names) in self.branches {
            let line = self.code[at].line;
            let find = |n: &String| self.labels.get(n).copied();
            let Some(places) = names.iter().map(find).collect::<Option<Vec<usize>>>() else {
                return wrong(line, format!("no label {}", names.join(", ")));
            };
            match &mut self.code[at].action {
                Action::Branch(to) => *to = places[0],
                Action::Table(_, to) => *to = places,
                _ => {}
            }
        }
        Ok(Kernel {
            name: self.name,
            params: self.params.len(),
            registers: self.registers.len(),
            local: self.local.1,
            shared: self.shared.1,
            code: self.code,
        })
    }
}

/// Splits at commas outside of braces.
fn split(operands: &str) -> Vec<&str> {
    let (mut out, mut start, mut depth) = (Vec::new(), 0, 0);
    for (i, c) in operands.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                out.push(operands[start..i].trim());
                start = i + 1;
            }
            _ => {}
        }
    }
    if !operands.is_empty() {
        out.push(operands[start..].trim());
    }
    out
}

/// The members of `{a, b}`, or a single operand.
fn list(text: &str) -> Vec<&str> {
    let inner = text.strip_prefix('{').and_then(|t| t.strip_suffix('}'));
    inner.map_or_else(|| vec![text], |inner| inner.split(',').map(str::trim).collect())
}

/// The width of a type in bits.
fn width(of: &str) -> Option<u32> {
    of.get(1..)?.parse().ok()
}

/// Parses `.global.v2.b32` without the opcode: space, bytes, signedness, vector length.
fn access(parts: &[&str]) -> Option<(Space, usize, bool, usize)> {
    let (space, parts) = match parts {
        // Loads through the read-only cache.
        ["global", "nc", rest @ ..] | ["global", rest @ ..] => (Space::Global, rest),
        ["local", rest @ ..] => (Space::Local, rest),
        rest => (Space::Generic, rest),
    };
    let (count, of) = match parts {
        ["v2", of] => (2, of),
        ["v4", of] => (4, of),
        [of] => (1, of),
        _ => return None,
    };
    let bits = width(of)?;
    matches!(bits, 8 | 16 | 32 | 64).then(|| (space, bits as usize / 8, of.starts_with('s'), count))
}

/// Decimal, `0x…`, `0f…` and `0d…`.
fn literal(text: &str) -> Option<u64> {
    let hex = |digits| u64::from_str_radix(digits, 16).ok();
    match text.get(..2) {
        Some("0x") => hex(text[2..].trim_end_matches('U')),
        Some("0f" | "0F") => hex(&text[2..]).filter(|_| text.len() == 10),
        Some("0d" | "0D") => hex(&text[2..]).filter(|_| text.len() == 18),
        _ => text.parse::<i64>().map(|x| x as u64).or_else(|_| text.parse()).ok(),
    }
}
