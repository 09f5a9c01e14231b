//! The stack machine of pickles, which builds a graph of values. Time and memory are linear in the
//! pickle's length: a value that is referenced several times is in the graph once.

use super::error::TorchError;

/// The maximum number of values in a pickle, each counted as often as it is referenced.
pub const OBJECTS: u64 = 4 << 20;
/// The maximum number of operations in a pickle.
pub const OPERATIONS: u64 = 16 << 20;
/// The maximum size of a pickle in bytes, and of all its strings, each counted as often as it is
/// referenced.
pub const PICKLE: u64 = 64 << 20;

/// A value's index in the graph.
pub(super) type Id = u32;

/// A value, which refers to the values in it by index.
#[derive(Debug)]
pub(super) enum Node<'a> {
    None,
    Bool(bool),
    Int(i64),
    /// An integer of more than 64 bits.
    Wide,
    Float(f64),
    Str(&'a str),
    Bytes(&'a [u8]),
    /// A list, tuple or set.
    List(Vec<Id>),
    /// Alternating keys and values.
    Dict(Vec<Id>),
    /// Module and name.
    Global(&'a str, &'a str),
    /// An object outside the pickle (a storage), by its persistent id.
    Persistent(Id),
    /// A call of a class or function with its arguments, and the state applied to the result.
    Call {
        callee: Id,
        args: Id,
        state: Option<Id>,
    },
}

/// All values of a pickle.
#[derive(Debug)]
pub(super) struct Graph<'a> {
    pub(super) nodes: Vec<Node<'a>>,
    pub(super) top: Id,
}

impl<'a> Graph<'a> {
    pub(super) fn node(&self, id: Id) -> &Node<'a> {
        self.nodes.get(id as usize).unwrap_or(&Node::None)
    }

    pub(super) fn list(&self, id: Id) -> Option<&[Id]> {
        match self.node(id) {
            Node::List(items) => Some(items),
            _ => None,
        }
    }

    pub(super) fn str(&self, id: Id) -> Option<&'a str> {
        match *self.node(id) {
            Node::Str(s) => Some(s),
            _ => None,
        }
    }

    pub(super) fn global(&self, id: Id) -> Option<(&'a str, &'a str)> {
        match *self.node(id) {
            Node::Global(module, name) => Some((module, name)),
            _ => None,
        }
    }

    pub(super) fn count(&self, id: Id) -> Option<usize> {
        match *self.node(id) {
            Node::Int(i) => usize::try_from(i).ok(),
            _ => None,
        }
    }
}

struct Machine<'a> {
    input: &'a [u8],
    at: usize,
    nodes: Vec<Node<'a>>,
    stack: Vec<Id>,
    /// The stack's length at each mark.
    marks: Vec<usize>,
    memo: Vec<Option<Id>>,
}

/// Runs a pickle.
pub(super) fn run(input: &[u8]) -> Result<Graph<'_>, TorchError> {
    if input.len() as u64 > PICKLE {
        return Err(TorchError::Limit { what: "bytes of a pickle", limit: PICKLE });
    }
    let mut machine = Machine {
        input,
        at: 0,
        nodes: Vec::new(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: Vec::new(),
    };
    for _ in 0..OPERATIONS {
        if let Some(top) = machine.step()? {
            return Ok(Graph { nodes: machine.nodes, top });
        }
    }
    Err(TorchError::Limit { what: "operations of a pickle", limit: OPERATIONS })
}

impl<'a> Machine<'a> {
    fn wrong<T>(&self, what: impl Into<String>) -> Result<T, TorchError> {
        Err(TorchError::Pickle { at: self.at, what: what.into() })
    }

    /// Runs one operation; returns the pickle's value at its end.
    fn step(&mut self) -> Result<Option<Id>, TorchError> {
        let [opcode] = self.fixed()?;
        match opcode {
            b'.' => return self.pop().map(Some),
            // PROTO, FRAME
            0x80 => match self.fixed()? {
                [0..=5] => {}
                [other] => return self.wrong(format!("protocol {other}")),
            },
            0x95 => drop(self.fixed::<8>()?),
            // MARK, POP, POP_MARK, DUP
            b'(' => self.marks.push(self.stack.len()),
            b'0' => match self.marks.last() {
                Some(&mark) if mark == self.stack.len() => drop(self.marks.pop()),
                _ => drop(self.pop()?),
            },
            b'1' => drop(self.since_mark()?),
            b'2' => {
                let top = self.top()?;
                self.stack.push(top);
            }
            // BINGET, LONG_BINGET, BINPUT, LONG_BINPUT, MEMOIZE
            b'h' => self.get_memo(|[n]| n.into())?,
            b'j' => self.get_memo(u32::from_le_bytes)?,
            b'q' => {
                let [n] = self.fixed()?;
                self.put_memo(n.into())?;
            }
            b'r' => {
                let n = u32::from_le_bytes(self.fixed()?);
                self.put_memo(n as usize)?;
            }
            0x94 => self.put_memo(self.memo.len())?,
            // NONE, NEWTRUE, NEWFALSE
            b'N' => self.push(Node::None)?,
            0x88 => self.push(Node::Bool(true))?,
            0x89 => self.push(Node::Bool(false))?,
            // BININT, BININT1, BININT2, LONG1, LONG4, BINFLOAT
            b'J' => {
                let n = i32::from_le_bytes(self.fixed()?);
                self.push(Node::Int(n.into()))?;
            }
            b'K' => {
                let [n] = self.fixed()?;
                self.push(Node::Int(n.into()))?;
            }
            b'M' => {
                let n = u16::from_le_bytes(self.fixed()?);
                self.push(Node::Int(n.into()))?;
            }
            0x8a | 0x8b => {
                let len = if opcode == 0x8a { self.len1()? } else { self.len4()? };
                let node = whole(self.take(len)?);
                self.push(node)?;
            }
            b'G' => {
                let x = f64::from_be_bytes(self.fixed()?);
                self.push(Node::Float(x))?;
            }
            // SHORT_BINUNICODE, BINUNICODE, BINUNICODE8; Python 2's SHORT_BINSTRING, BINSTRING
            0x8c => self.text(Self::len1)?,
            b'X' => self.text(Self::len4)?,
            0x8d => self.text(Self::len8)?,
            b'U' => self.text(Self::len1)?,
            b'T' => self.text(Self::len4)?,
            // SHORT_BINBYTES, BINBYTES, BINBYTES8, BYTEARRAY8
            b'C' => self.bytes(Self::len1)?,
            b'B' => self.bytes(Self::len4)?,
            0x8e | 0x96 => self.bytes(Self::len8)?,
            // EMPTY_TUPLE, EMPTY_LIST, EMPTY_SET; TUPLE, LIST, FROZENSET; TUPLE1, 2, 3
            b')' | b']' | 0x8f => self.push(Node::List(Vec::new()))?,
            b't' | b'l' | 0x91 => {
                let items = self.since_mark()?;
                self.push(Node::List(items))?;
            }
            0x85..=0x87 => {
                let count = usize::from(opcode - 0x84);
                let from = self.stack.len().checked_sub(count).filter(|&from| from >= self.floor());
                let Some(from) = from else { return self.wrong("the stack is empty") };
                let items = self.stack.split_off(from);
                self.push(Node::List(items))?;
            }
            // EMPTY_DICT, DICT
            b'}' => self.push(Node::Dict(Vec::new()))?,
            b'd' => {
                let items = self.since_mark()?;
                if !items.len().is_multiple_of(2) {
                    return self.wrong("a key without a value");
                }
                self.push(Node::Dict(items))?;
            }
            // APPEND, APPENDS, ADDITEMS, SETITEM, SETITEMS
            b'a' => {
                let item = self.pop()?;
                self.extend(vec![item], false)?;
            }
            b'e' | 0x90 => {
                let items = self.since_mark()?;
                self.extend(items, false)?;
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.extend(vec![key, value], true)?;
            }
            b'u' => {
                let items = self.since_mark()?;
                self.extend(items, true)?;
            }
            // GLOBAL, STACK_GLOBAL
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.push(Node::Global(module, name))?;
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                match (self.nodes.get(module as usize), self.nodes.get(name as usize)) {
                    (Some(&Node::Str(module)), Some(&Node::Str(name))) => {
                        self.push(Node::Global(module, name))?;
                    }
                    _ => return self.wrong("a name that is not a string"),
                }
            }
            // BINPERSID
            b'Q' => {
                let id = self.pop()?;
                self.push(Node::Persistent(id))?;
            }
            // REDUCE, NEWOBJ; NEWOBJ_EX, whose named arguments are left out
            b'R' | 0x81 => self.call()?,
            0x92 => {
                self.pop()?;
                self.call()?;
            }
            // BUILD
            b'b' => {
                let given = self.pop()?;
                let top = self.top()?;
                if let Some(Node::Call { state, .. }) = self.nodes.get_mut(top as usize) {
                    *state = Some(given);
                }
            }
            other => {
                self.at -= 1;
                return self.wrong(format!("operation {other:#04x}, which is not known"));
            }
        }
        Ok(None)
    }

    /// The result of a class or function called with the arguments on top of the stack. Dictionaries are
    /// filled later.
    fn call(&mut self) -> Result<(), TorchError> {
        let (args, callee) = (self.pop()?, self.pop()?);
        let first = match self.nodes.get(args as usize) {
            Some(Node::List(items)) => items.first().copied(),
            _ => return self.wrong("arguments that are not a tuple"),
        };
        match (self.nodes.get(callee as usize), first) {
            (Some(Node::Global("collections", "OrderedDict")), None)
            | (Some(Node::Global("collections", "defaultdict")), _)
            | (Some(Node::Global("builtins" | "__builtin__", "dict")), None) => {
                self.push(Node::Dict(Vec::new()))
            }
            // The container of MultiStepLR's milestones, pickled with its contents.
            (Some(Node::Global("collections", "Counter")), Some(items))
                if matches!(self.nodes.get(items as usize), Some(Node::Dict(_))) =>
            {
                self.stack.push(items);
                Ok(())
            }
            (Some(Node::Global("builtins" | "__builtin__", "set" | "frozenset")), Some(items))
            | (Some(Node::Global("torch", "Size")), Some(items)) => {
                self.stack.push(items);
                Ok(())
            }
            _ => self.push(Node::Call { callee, args, state: None }),
        }
    }

    /// Adds items to the list or dictionary on top of the stack.
    fn extend(&mut self, mut items: Vec<Id>, pairs: bool) -> Result<(), TorchError> {
        let top = self.top()?;
        match self.nodes.get_mut(top as usize) {
            Some(Node::List(list)) if !pairs => list.append(&mut items),
            Some(Node::Dict(dict)) if pairs && items.len().is_multiple_of(2) => {
                dict.append(&mut items)
            }
            // Another class that is filled like one of these: its items are dropped.
            Some(Node::Call { .. }) => {}
            _ => return self.wrong("items for what holds none"),
        }
        Ok(())
    }

    fn push(&mut self, node: Node<'a>) -> Result<(), TorchError> {
        if self.nodes.len() as u64 >= OBJECTS {
            return Err(TorchError::Limit { what: "objects", limit: OBJECTS });
        }
        self.stack.push(self.nodes.len() as Id);
        self.nodes.push(node);
        Ok(())
    }

    /// Values below the last mark are out of reach.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn top(&self) -> Result<Id, TorchError> {
        match self.stack.last() {
            Some(&top) if self.stack.len() > self.floor() => Ok(top),
            _ => self.wrong("the stack is empty"),
        }
    }

    fn pop(&mut self) -> Result<Id, TorchError> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn since_mark(&mut self) -> Result<Vec<Id>, TorchError> {
        match self.marks.pop() {
            Some(mark) if mark <= self.stack.len() => Ok(self.stack.split_off(mark)),
            _ => self.wrong("no mark"),
        }
    }

    fn put_memo(&mut self, n: usize) -> Result<(), TorchError> {
        let top = self.top()?;
        if n as u64 >= OBJECTS {
            return Err(TorchError::Limit { what: "objects", limit: OBJECTS });
        }
        if n >= self.memo.len() {
            self.memo.resize(n + 1, None);
        }
        self.memo[n] = Some(top);
        Ok(())
    }

    fn get_memo<const N: usize>(&mut self, number: fn([u8; N]) -> u32) -> Result<(), TorchError> {
        let n = number(self.fixed()?);
        match self.memo.get(n as usize) {
            Some(&Some(id)) => self.stack.push(id),
            _ => return self.wrong(format!("value {n}, which was not kept")),
        }
        Ok(())
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], TorchError> {
        let rest = self.input.get(self.at..).unwrap_or_default();
        match rest.get(..len) {
            Some(bytes) => {
                self.at += len;
                Ok(bytes)
            }
            None => self.wrong(format!("{len} bytes wanted, {} left", rest.len())),
        }
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], TorchError> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N)?);
        Ok(bytes)
    }

    fn len1(&mut self) -> Result<usize, TorchError> {
        self.fixed().map(|[len]| len.into())
    }

    fn len4(&mut self) -> Result<usize, TorchError> {
        self.fixed().map(|len| u32::from_le_bytes(len) as usize)
    }

    fn len8(&mut self) -> Result<usize, TorchError> {
        self.fixed().map(|len| usize::try_from(u64::from_le_bytes(len)).unwrap_or(usize::MAX))
    }

    fn text(&mut self, len: fn(&mut Self) -> Result<usize, TorchError>) -> Result<(), TorchError> {
        let len = len(self)?;
        match std::str::from_utf8(self.take(len)?) {
            Ok(text) => self.push(Node::Str(text)),
            Err(_) => self.wrong("a string that is not UTF-8"),
        }
    }

    fn bytes(&mut self, len: fn(&mut Self) -> Result<usize, TorchError>) -> Result<(), TorchError> {
        let len = len(self)?;
        let bytes = self.take(len)?;
        self.push(Node::Bytes(bytes))
    }

    fn line(&mut self) -> Result<&'a str, TorchError> {
        let rest = self.input.get(self.at..).unwrap_or_default();
        let end = rest.iter().position(|&b| b == b'\n');
        match end.map(|end| std::str::from_utf8(&rest[..end])) {
            Some(Ok(line)) => {
                self.at += line.len() + 1;
                Ok(line)
            }
            _ => self.wrong("a name without an end"),
        }
    }
}

/// An integer from its little-endian two's complement of any length.
fn whole<'a>(bytes: &[u8]) -> Node<'a> {
    let fill = if bytes.last().is_some_and(|b| b & 0x80 != 0) { 0xff } else { 0 };
    let (low, high) = bytes.split_at(bytes.len().min(8));
    let mut word = [fill; 8];
    word[..low.len()].copy_from_slice(low);
    let n = i64::from_le_bytes(word);
    match high.iter().all(|&b| b == fill) && (n < 0) == (fill != 0) {
        true => Node::Int(n),
        false => Node::Wide,
    }
}
