//! Whom a file's access control list lets in besides its owner.
//!
//! systemd leaves a credential to root and lets the service's user read it by the list. What the
//! mode shows of the group is then the list's mask: 0440, though the group may do nothing. Knows
//! of lists only what it takes to tell such a file from one that a group may read.

use std::fs::File;

/// Where the kernel keeps the list (`acl(5)`).
const ATTRIBUTE: &str = "system.posix_acl_access";

/// The version of its layout.
const VERSION: u32 = 2;

/// The longest list that is looked at.
const BYTES_MAX: usize = 512;

const READ: u16 = 4;
const OWNER: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OF_FILE: u16 = 0x04;
const MASK: u16 = 0x10;
const OTHERS: u16 = 0x20;

/// Whether `file` has a list, by which nobody but its owner, root and this process's user may read
/// it, and nobody but its owner write it.
pub(super) fn is_own(file: &File) -> bool {
    let mut list = [0; BYTES_MAX];
    let read = rustix::fs::fgetxattr(file, ATTRIBUTE, &mut list);
    let own = rustix::process::geteuid().as_raw();
    read.is_ok_and(|length| list.get(..length).is_some_and(|list| lets_in(list, own)))
}

/// Whether `list` lets in the user `own` and root alone, besides the owner.
fn lets_in(list: &[u8], own: u32) -> bool {
    let Some((version, entries)) = list.split_first_chunk() else {
        return false;
    };
    let (entries, rest) = entries.as_chunks::<8>();
    let is_harmless = |entry: &[u8; 8]| {
        let [tag_0, tag_1, may_0, may_1, id @ ..] = *entry;
        let may = u16::from_le_bytes([may_0, may_1]);
        match u16::from_le_bytes([tag_0, tag_1]) {
            OWNER | MASK => true,
            USER => may & !READ == 0 && [0, own].contains(&u32::from_le_bytes(id)),
            GROUP_OF_FILE | OTHERS => may == 0,
            // A named group, or something new.
            _ => false,
        }
    };
    u32::from_le_bytes(*version) == VERSION && rest.is_empty() && entries.iter().all(is_harmless)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const NAMED_GROUP: u16 = 0x08;
    const NOBODY: u32 = u32::MAX;

    /// A list as the kernel has it.
    pub(in crate::store) fn list(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let mut bytes = VERSION.to_le_bytes().to_vec();
        for (tag, may, id) in entries {
            bytes.extend(tag.to_le_bytes());
            bytes.extend(may.to_le_bytes());
            bytes.extend(id.to_le_bytes());
        }
        bytes
    }

    /// What systemd gives to the service's user, `user`.
    pub(in crate::store) fn of_systemd(user: u32) -> Vec<u8> {
        list(&[
            (OWNER, 4, NOBODY),
            (USER, 4, user),
            (GROUP_OF_FILE, 0, NOBODY),
            (MASK, 4, NOBODY),
            (OTHERS, 0, NOBODY),
        ])
    }

    /// Gives `file` a list.
    pub(in crate::store) fn set(file: &std::path::Path, list: &[u8]) {
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(file, ATTRIBUTE, list, flags).unwrap();
    }

    #[test]
    fn one_user_alone() {
        assert!(lets_in(&of_systemd(998), 998));
        assert!(lets_in(&of_systemd(0), 998), "root may anyway");
        assert!(!lets_in(&of_systemd(999), 998), "somebody else");
        let base = |group, others| {
            [(OWNER, 6, NOBODY), (GROUP_OF_FILE, group, NOBODY), (OTHERS, others, NOBODY)]
        };
        assert!(lets_in(&list(&base(0, 0)), 998));
        for (group, others) in [(4, 0), (0, 4), (2, 0), (0, 1)] {
            assert!(!lets_in(&list(&base(group, others)), 998), "{group} {others}");
        }
        let mut more = base(0, 0).to_vec();
        more.push((USER, 6, 998));
        assert!(!lets_in(&list(&more), 998), "may write it");
        for tag in [NAMED_GROUP, 0x40] {
            more.pop();
            more.push((tag, 4, 998));
            assert!(!lets_in(&list(&more), 998), "{tag:#x}");
        }
    }

    #[test]
    fn what_is_no_list() {
        let good = of_systemd(998);
        for cut in 0..good.len() {
            // A list that is whole but shorter lets in fewer.
            let whole = cut >= 4 && (cut - 4) % 8 == 0;
            assert_eq!(lets_in(&good[..cut], 998), whole, "{cut}");
        }
        let mut newer = good;
        newer[0] = 3;
        assert!(!lets_in(&newer, 998));
    }
}
