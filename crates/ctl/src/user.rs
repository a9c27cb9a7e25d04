//! Users by name or number, from /etc/passwd and /etc/group alone: names of other services
//! (LDAP, …) are given as numbers.

use crate::Usage;
use std::{fs, path::Path};

/// Whose rights a program gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl User {
    /// `NAME`, `UID`, and either with `:GROUP`.
    pub(crate) fn find(text: &str) -> anyhow::Result<Self> {
        let passwd = fs::read_to_string(Path::new("/etc/passwd")).unwrap_or_default();
        let group = fs::read_to_string(Path::new("/etc/group")).unwrap_or_default();
        find(text, &passwd, &group).ok_or_else(|| {
            Usage(format!(
                "--user {text}: expected USER or USER:GROUP, by a name of /etc/passwd and \
                 /etc/group or by number"
            ))
            .into()
        })
    }
}

fn find(text: &str, passwd: &str, group: &str) -> Option<User> {
    let (user, its_group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let number = |text: &str| text.parse::<u32>().ok();
    let entry = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, uid) = (fields.next()?, number(fields.nth(1)?)?);
        let gid = number(fields.next()?)?;
        (name == user || number(user) == Some(uid)).then_some((uid, gid))
    });
    let uid = entry.map(|(uid, _)| uid).or_else(|| number(user))?;
    let gid = match its_group {
        Some(name) => group
            .lines()
            .find_map(|line| {
                let mut fields = line.split(':');
                (fields.next()? == name).then(|| number(fields.nth(1)?))?
            })
            .or_else(|| number(name))?,
        // Who is in no file is a group of its own.
        None => entry.map_or(uid, |(_, gid)| gid),
    };
    Some(User { uid, gid })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_name_and_number() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65533::/:/bin/false\n";
        let group = "root:x:0:\nstaff:x:50:\n";
        let found = |text| find(text, passwd, group).map(|user| (user.uid, user.gid));
        assert_eq!(found("nobody"), Some((65_534, 65_533)));
        assert_eq!(found("65534"), Some((65_534, 65_533)));
        assert_eq!(found("1234"), Some((1234, 1234)));
        assert_eq!(found("nobody:staff"), Some((65_534, 50)));
        assert_eq!(found("7:8"), Some((7, 8)));
        assert_eq!(found("nobody:nothere"), None);
        assert_eq!(found("nothere"), None);
        assert_eq!(found(""), None);
    }
}
