//! The C header: compiled by the system's compilers as strictly as they can, its constants and
//! layout held against `dynencap_abi`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use dynencap_abi::{Info, MARK_MASK, MAX_HEADER_LEN, option};
use std::{fs, io, mem::offset_of, process::Command};

const PROGRAM: &str = r#"
#include "dynencap.h"
#include <stddef.h>
#include <stdio.h>
#include <unistd.h>

#define SHOW(name) printf(#name " %lld\n", (long long)(name))

int main(void)
{
    int fd = socket(AF_INET6, SOCK_DGRAM, 0);
    struct in6_addr six = IN6ADDR_LOOPBACK_INIT;
    struct in_addr four;
    struct dynencap_info info;
    uint32_t what;

    SHOW(SOL_DYNENCAP);
    SHOW(ENCAP_GW);
    SHOW(ENCAP_UDP);
    SHOW(ENCAP_REFLECT);
    SHOW(DYNENCAP_REFLECT_PATH);
    SHOW(DYNENCAP_REFLECT_DSCP);
    SHOW(DYNENCAP_REFLECT_MARK);
    SHOW(ENCAP_INFO);
    SHOW(DYNENCAP_GATEWAY_LEN);
    SHOW(DYNENCAP_GATEWAY4_LEN);
    SHOW(DYNENCAP_PORTS_LEN);
    SHOW(DYNENCAP_MAX_HEADER_LEN);
    SHOW(DYNENCAP_MARK_MASK);
    SHOW(sizeof(struct dynencap_info));
    SHOW(offsetof(struct dynencap_info, dropped));
    SHOW(offsetof(struct dynencap_info, last_drop));
    SHOW(offsetof(struct dynencap_info, overhead));
    SHOW(offsetof(struct dynencap_info, mtu));

    /* A header that is too long never reaches the kernel. */
    SHOW(dynencap_set_udp(fd, 0, 1, "", 33));
    SHOW(errno == EINVAL);
    /* Nothing is installed for this descriptor: it is closed. */
    close(fd);
    four.s_addr = htonl(0xc0000201);
    SHOW(dynencap_set_gateway6(fd, &six) + dynencap_set_gateway4(fd, &four)
         + dynencap_set_udp(fd, 0, 6080, "\1\2", 2) + dynencap_clear_udp(fd)
         + dynencap_clear_gateway(fd) + dynencap_get_info(fd, &info)
         + dynencap_set_reflect(fd, DYNENCAP_REFLECT_PATH) + dynencap_clear_reflect(fd)
         + dynencap_get_reflect(fd, &what));
    SHOW(errno == EBADF);
    return 0;
}
"#;

/// Compiles and runs the program; `None` where there is no such compiler.
fn output(compiler: &str, arguments: &[&str], file: &str) -> Option<String> {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join(file);
    let program = folder.path().join("program");
    fs::write(&source, PROGRAM).unwrap();
    let include = concat!(env!("CARGO_MANIFEST_DIR"), "/include");
    let compiled = Command::new(compiler)
        .args(arguments)
        .args([
            "-Wall",
            "-Wextra",
            "-Werror",
            "-pedantic",
            "-I",
            include,
            "-o",
        ])
        .arg(&program)
        .arg(&source)
        .output();
    let compiled = match compiled {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        other => other.unwrap(),
    };
    let complaint = String::from_utf8_lossy(&compiled.stderr);
    assert!(compiled.status.success(), "{compiler}: {complaint}");
    let run = Command::new(&program).output().unwrap();
    assert!(run.status.success());
    Some(String::from_utf8(run.stdout).unwrap())
}

fn expected() -> String {
    [
        ("SOL_DYNENCAP", i64::from(option::SOL_DYNENCAP)),
        ("ENCAP_GW", i64::from(option::ENCAP_GW)),
        ("ENCAP_UDP", i64::from(option::ENCAP_UDP)),
        ("ENCAP_REFLECT", i64::from(option::ENCAP_REFLECT)),
        ("DYNENCAP_REFLECT_PATH", i64::from(option::REFLECT_PATH)),
        ("DYNENCAP_REFLECT_DSCP", i64::from(option::REFLECT_DSCP)),
        ("DYNENCAP_REFLECT_MARK", i64::from(option::REFLECT_MARK)),
        ("ENCAP_INFO", i64::from(option::ENCAP_INFO)),
        ("DYNENCAP_GATEWAY_LEN", option::GATEWAY_LEN as i64),
        ("DYNENCAP_GATEWAY4_LEN", option::GATEWAY4_LEN as i64),
        ("DYNENCAP_PORTS_LEN", option::PORTS_LEN as i64),
        ("DYNENCAP_MAX_HEADER_LEN", MAX_HEADER_LEN as i64),
        ("DYNENCAP_MARK_MASK", i64::from(MARK_MASK)),
        ("sizeof(struct dynencap_info)", size_of::<Info>() as i64),
        (
            "offsetof(struct dynencap_info, dropped)",
            offset_of!(Info, dropped) as i64,
        ),
        (
            "offsetof(struct dynencap_info, last_drop)",
            offset_of!(Info, last_drop) as i64,
        ),
        (
            "offsetof(struct dynencap_info, overhead)",
            offset_of!(Info, overhead) as i64,
        ),
        (
            "offsetof(struct dynencap_info, mtu)",
            offset_of!(Info, mtu) as i64,
        ),
        ("dynencap_set_udp(fd, 0, 1, \"\", 33)", -1),
        ("errno == EINVAL", 1),
    ]
    .iter()
    .map(|(name, value)| format!("{name} {value}\n"))
    .collect()
}

#[test]
fn c_and_cpp_see_the_abi_of_rust() {
    let compilers: [(&str, &[&str], &str); 2] = [
        ("cc", &["-std=c99", "-D_DEFAULT_SOURCE"], "program.c"),
        ("c++", &["-std=c++11"], "program.cc"),
    ];
    for (compiler, arguments, file) in compilers {
        let Some(output) = output(compiler, arguments, file) else {
            eprintln!("skipped: no {compiler} here");
            continue;
        };
        let Some(rest) = output.strip_prefix(&expected()) else {
            panic!("{compiler}: {output}");
        };
        let sum = rest.lines().next().unwrap();
        assert!(sum.ends_with(" -9"), "all nine calls fail: {sum}");
        assert!(rest.ends_with("errno == EBADF 1\n"), "{rest}");
    }
}
