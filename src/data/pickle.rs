//! As much of Python's pickle format as the batches of CIFAR need, and nothing that runs.
//!
//! A pickle is a program for a small stack machine. This reader walks through it with flat items
//! (numbers, bytes, lists of numbers) instead of objects: what a constructor would build is replaced
//! by the bytes among its state, nothing is imported or called, and as nothing nests, no file can
//! exhaust the stack. Every instruction is at least a byte and leaves at most one item, so memory is
//! bounded by the length of the file.

use std::collections::{BTreeMap, HashMap};

/// A value on the machine's stack.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Item<'a> {
    /// Bytes or text; of a NumPy array its data.
    Bytes(&'a [u8]),
    /// A list of numbers.
    Ints(Vec<i64>),
    Int(i64),
    True,
    Mark,
    Other,
}

/// What the dictionary that makes up a pickle holds under each key.
pub(super) type Dictionary<'a> = BTreeMap<Vec<u8>, Item<'a>>;

/// The outermost dictionary of the pickle in `content`, or what is wrong with it.
pub(super) fn dictionary(content: &[u8]) -> Result<Dictionary<'_>, String> {
    let mut machine = Machine {
        content,
        at: 0,
        stack: Vec::new(),
        memo: HashMap::new(),
        next_memo: 0,
        dictionary: Dictionary::new(),
    };
    while machine.step()? {}
    Ok(machine.dictionary)
}

struct Machine<'a> {
    content: &'a [u8],
    at: usize,
    stack: Vec<Item<'a>>,
    /// Remembered items; only bytes are worth it, for keys that repeat.
    memo: HashMap<u32, &'a [u8]>,
    next_memo: u32,
    dictionary: Dictionary<'a>,
}

impl<'a> Machine<'a> {
    /// Carries out an instruction; false at the last.
    fn step(&mut self) -> Result<bool, String> {
        let at = self.at;
        let code = self.take(1)?[0];
        match code {
            b'.' => return Ok(false),
            // Protocol and frame headers.
            0x80 => drop(self.take(1)?),
            0x95 => drop(self.take(8)?),
            b'(' => self.stack.push(Item::Mark),
            b'}' | b']' | b')' | b'N' | 0x89 | 0x8f => self.stack.push(match code {
                b']' => Item::Ints(Vec::new()),
                _ => Item::Other,
            }),
            0x88 => self.stack.push(Item::True),
            b'K' => self.int(1, false)?,
            b'M' => self.int(2, false)?,
            b'J' => self.int(4, true)?,
            0x8a => {
                let n = self.length(1)?;
                self.int(n, true)?;
            }
            b'G' => {
                self.take(8)?;
                self.stack.push(Item::Other);
            }
            b'U' | b'C' | 0x8c => self.bytes(1)?,
            b'T' | b'B' | b'X' => self.bytes(4)?,
            0x8d | 0x8e => self.bytes(8)?,
            b'c' => {
                self.line()?;
                self.line()?;
                self.stack.push(Item::Other);
            }
            0x93 | b'R' | 0x81 => {
                // An import by name or a call: a stand-in for its result.
                self.pop()?;
                self.pop()?;
                self.stack.push(Item::Other);
            }
            b'b' => {
                // An object takes its state; the object is a stand-in, so the state replaces it.
                let state = self.pop()?;
                self.pop()?;
                self.stack.push(state);
            }
            b't' | b'l' | b'd' => {
                let items = self.pop_to_mark()?;
                self.stack.push(tuple(&items));
            }
            0x85..=0x87 => {
                let n = usize::from(code - 0x84);
                let from = self.stack.len().checked_sub(n).ok_or("an empty stack")?;
                let items = self.stack.split_off(from);
                self.stack.push(tuple(&items));
            }
            b'a' => {
                let item = self.pop()?;
                self.append(vec![item])?;
            }
            b'e' => {
                let items = self.pop_to_mark()?;
                self.append(items)?;
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.insert(vec![key, value])?;
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                self.insert(items)?;
            }
            b'q' => {
                let name = self.length(1)?;
                self.remember(name as u32)?;
            }
            b'r' => {
                let name = self.length(4)?;
                self.remember(name as u32)?;
            }
            0x94 => self.remember(self.next_memo)?,
            b'h' | b'j' => {
                let name = self.length(if code == b'h' { 1 } else { 4 })?;
                let item = self.memo.get(&(name as u32));
                self.stack
                    .push(item.map_or(Item::Other, |bytes| Item::Bytes(bytes)));
            }
            b'0' => drop(self.pop()?),
            _ => return Err(format!("the unknown instruction {code:#04x} at byte {at}")),
        }
        Ok(true)
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8], String> {
        let rest = &self.content[self.at..];
        if n > rest.len() {
            return Err(format!("the end after {} bytes", self.content.len()));
        }
        self.at += n;
        Ok(&rest[..n])
    }

    /// A length of so many little-endian bytes.
    fn length(&mut self, bytes: usize) -> Result<usize, String> {
        let mut word = [0; 8];
        word[..bytes].copy_from_slice(self.take(bytes)?);
        usize::try_from(u64::from_le_bytes(word)).map_err(|_| "an absurd length".into())
    }

    fn int(&mut self, bytes: usize, signed: bool) -> Result<(), String> {
        let digits = self.take(bytes)?;
        self.stack.push(if bytes > 8 {
            Item::Other
        } else {
            let negative = signed && digits.last().is_some_and(|&last| last >= 0x80);
            let mut word = [if negative { 0xff } else { 0 }; 8];
            word[..bytes].copy_from_slice(digits);
            Item::Int(i64::from_le_bytes(word))
        });
        Ok(())
    }

    fn bytes(&mut self, length_bytes: usize) -> Result<(), String> {
        let n = self.length(length_bytes)?;
        let bytes = self.take(n)?;
        self.stack.push(Item::Bytes(bytes));
        Ok(())
    }

    fn line(&mut self) -> Result<(), String> {
        let rest = &self.content[self.at..];
        let end = rest.iter().position(|&b| b == b'\n');
        self.take(end.ok_or("a name without an end")? + 1)?;
        Ok(())
    }

    fn pop(&mut self) -> Result<Item<'a>, String> {
        self.stack.pop().ok_or("an empty stack".into())
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Item<'a>>, String> {
        let mark = self.stack.iter().rposition(|item| *item == Item::Mark);
        let items = self
            .stack
            .split_off(mark.ok_or("no mark on the stack")? + 1);
        self.stack.pop();
        Ok(items)
    }

    fn append(&mut self, items: Vec<Item<'a>>) -> Result<(), String> {
        let list = self.stack.last_mut().ok_or("an empty stack")?;
        for item in items {
            match (&mut *list, item) {
                (Item::Ints(ints), Item::Int(int)) => ints.push(int),
                _ => *list = Item::Other,
            }
        }
        Ok(())
    }

    fn insert(&mut self, items: Vec<Item<'a>>) -> Result<(), String> {
        if self.stack.is_empty() {
            return Err("an empty stack".into());
        }
        // Only the outermost dictionary counts; it lies at the bottom.
        if self.stack.len() == 1 {
            let mut items = items.into_iter();
            while let (Some(key), Some(value)) = (items.next(), items.next()) {
                if let Item::Bytes(key) = key {
                    self.dictionary.insert(key.to_vec(), value);
                }
            }
        }
        Ok(())
    }

    fn remember(&mut self, name: u32) -> Result<(), String> {
        self.next_memo = name.wrapping_add(1);
        match self.stack.last() {
            Some(Item::Bytes(bytes)) => drop(self.memo.insert(name, bytes)),
            Some(_) => drop(self.memo.remove(&name)),
            None => return Err("an empty stack".into()),
        }
        Ok(())
    }
}

/// What stands for a tuple: the longest bytes in it, which in the state of a NumPy array are its data.
/// An array in column-major order says so with a `True`, and is not read.
fn tuple<'a>(items: &[Item<'a>]) -> Item<'a> {
    if items.contains(&Item::True) {
        return Item::Other;
    }
    let bytes = items.iter().filter_map(|item| match item {
        Item::Bytes(bytes) => Some(*bytes),
        _ => None,
    });
    bytes
        .max_by_key(|bytes| bytes.len())
        .map_or(Item::Other, Item::Bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_of_every_width_are_read() {
        let pickle =
            b"\x80\x02}q\x00U\x01aq\x01]q\x02(K\xffM\x00\x01J\xff\xff\xff\xff\x8a\x01\x80es.";
        let dictionary = dictionary(pickle).unwrap();
        assert_eq!(dictionary[&b"a"[..]], Item::Ints(vec![255, 256, -1, -128]));
    }

    /// `pickle.dumps({"a": numpy.array([[1, 2], [3, 4]], "u1"), b"a2": b"xy"}, 4)`, and a call.
    #[test]
    fn arrays_are_their_data_and_calls_are_nothing() {
        let array = b"\x80\x04\x95\xa1\x00\x00\x00\x00\x00\x00\x00}\x94(\x8c\x01a\x94\
            \x8c\x16numpy._core.multiarray\x94\x8c\x0c_reconstruct\x94\x93\x94\x8c\x05numpy\x94\
            \x8c\x07ndarray\x94\x93\x94K\x00\x85\x94C\x01b\x94\x87\x94R\x94(K\x01K\x02K\x02\x86\x94\
            h\x05\x8c\x05dtype\x94\x93\x94\x8c\x02u1\x94\x89\x88\x87\x94R\x94(K\x03\x8c\x01|\x94NNN\
            J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t\x94b\x89C\x04\x01\x02\x03\x04\x94t\x94bC\x02a2\
            \x94C\x02xy\x94u.";
        let read = dictionary(array).unwrap();
        assert_eq!(read[&b"a"[..]], Item::Bytes(&[1, 2, 3, 4]));
        assert_eq!(read[&b"a2"[..]], Item::Bytes(b"xy"));
        let call = b"}U\x01acos\nsystem\nU\x04echo\x85Rs.";
        assert_eq!(dictionary(call).unwrap()[&b"a"[..]], Item::Other);
    }

    #[test]
    fn deep_nesting_is_harmless() {
        let mut pickle = vec![b']'; 1_000_000];
        pickle.extend(vec![b'a'; 999_999]);
        pickle.push(b'.');
        assert_eq!(dictionary(&pickle), Ok(Dictionary::new()));
    }

    proptest! {
        #[test]
        fn no_bytes_are_a_panic(bytes: Vec<u8>, codes in prop::collection::vec(0usize..40, 0..99)) {
            let _ = dictionary(&bytes);
            // The same with instructions only, which get further.
            const CODES: &[u8] = b"(}]KMJUTCctbRaesuqhr0)N.\x85\x86\x87\x88\x89\x8a\x8c\x8e\x93\x94jX";
            let program: Vec<u8> = codes.iter().map(|&c| CODES[c % CODES.len()]).collect();
            let _ = dictionary(&program);
        }
    }
}
