//! Two BPF programs that make macvlans on a server's TAP behave like VLAN links, for kernels
//! without 8021q.
//!
//! The ingress program removes the VLAN tag of a frame and writes the MAC of that VLAN's accepting slot
//! as the destination; the macvlan driver then delivers and counts the frame. The egress program adds the tag
//! of the slot whose MAC is the source. All other frames are dropped. RFC 9669 defines the instruction set,
//! linux/bpf.h the helpers and `struct __sk_buff`. The programs are attached as TCX (Linux 6.6), so they
//! stay with the link and outlive the daemon.
#![expect(unsafe_code, reason = "bpf(2) has no safe wrapper")]

use super::KernelError;
use std::{
    ffi::c_long,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

/// One instruction: opcode, registers, 16-bit offset, 32-bit immediate, in the machine's order.
type Instruction = [u8; 8];

/// An instruction, or a conditional jump to the end of the program, where the frame is dropped.
enum Step {
    Plain(Instruction),
    /// Opcode of the comparison, register, value to compare with.
    DropIf(u8, Register, i32),
}

type Register = u8;
const R0: Register = 0;
const R1: Register = 1;
const R2: Register = 2;
const R3: Register = 3;
const R4: Register = 4;
const R5: Register = 5;
const R6: Register = 6;
const R7: Register = 7;
/// The frame pointer: the end of the stack.
const FP: Register = 10;

const EQUAL: u8 = 0x15;
const NOT_EQUAL: u8 = 0x55;

// Helpers, enum bpf_func_id.
const STORE_BYTES: i32 = 9;
const VLAN_PUSH: i32 = 18;
const VLAN_POP: i32 = 19;
const LOAD_BYTES: i32 = 26;
const CHANGE_TYPE: i32 = 32;

// Offsets in struct __sk_buff.
const VLAN_PRESENT: i16 = 20;
const VLAN_TCI: i16 = 24;
const VLAN_PROTO: i16 = 28;

/// `PACKET_OTHERHOST` of linux/if_packet.h: the host ignores the frame unless a macvlan receives it.
const OTHER_HOST: i32 = 3;
/// Offset of the slot's MAC from the frame pointer.
const MAC: i16 = -8;
/// Offset of the last two bytes of the MAC, which are the VLAN number.
const MAC_VLAN: i16 = -4;

// enum tcx_action_base: pass the frame on, drop it.
const NEXT: i32 = -1;
const DROP: i32 = 2;

fn instruction(
    opcode: u8,
    dst: Register,
    src: Register,
    offset: i16,
    immediate: i32,
) -> Instruction {
    let registers = if cfg!(target_endian = "little") {
        dst | src << 4
    } else {
        dst << 4 | src
    };
    let [a, b] = offset.to_ne_bytes();
    let [c, d, e, f] = immediate.to_ne_bytes();
    [opcode, registers, a, b, c, d, e, f]
}

fn copy(dst: Register, src: Register) -> Step {
    Step::Plain(instruction(0xbf, dst, src, 0, 0))
}

fn set(dst: Register, value: i32) -> Step {
    Step::Plain(instruction(0xb7, dst, 0, 0, value))
}

fn add(dst: Register, value: i32) -> Step {
    Step::Plain(instruction(0x07, dst, 0, 0, value))
}

fn and(dst: Register, value: i32) -> Step {
    Step::Plain(instruction(0x57, dst, 0, 0, value))
}

/// Converts 16 bits between host and network byte order.
fn swap16(dst: Register) -> Step {
    Step::Plain(instruction(0xdc, dst, 0, 0, 16))
}

fn load32(dst: Register, src: Register, offset: i16) -> Step {
    Step::Plain(instruction(0x61, dst, src, offset, 0))
}

fn load16(dst: Register, src: Register, offset: i16) -> Step {
    Step::Plain(instruction(0x69, dst, src, offset, 0))
}

fn store16(dst: Register, src: Register, offset: i16) -> Step {
    Step::Plain(instruction(0x6b, dst, src, offset, 0))
}

fn store32_value(dst: Register, offset: i16, value: i32) -> Step {
    Step::Plain(instruction(0x62, dst, 0, offset, value))
}

fn call(helper: i32) -> Step {
    Step::Plain(instruction(0x85, 0, 0, 0, helper))
}

/// Builds a program from its steps. It appends the two ends: one passes the frame on, the other drops it.
fn assemble(steps: Vec<Step>) -> Vec<Instruction> {
    let exit = instruction(0x95, 0, 0, 0, 0);
    let return_value = |action| instruction(0xb7, R0, 0, 0, action);
    let drop_at = steps.len() + 2;
    let line = |(at, step): (usize, Step)| match step {
        Step::Plain(instruction) => instruction,
        Step::DropIf(opcode, register, value) => {
            // Programs are shorter than 64 instructions.
            let offset = i16::try_from(drop_at - at - 1).unwrap_or(i16::MAX);
            instruction(opcode, register, 0, offset, value)
        }
    };
    let mut code: Vec<Instruction> = steps.into_iter().enumerate().map(line).collect();
    code.extend([return_value(NEXT), exit, return_value(DROP), exit]);
    code
}

/// The EtherType of 802.1Q, in network byte order, as the kernel stores it.
fn ether_type_8021q() -> i32 {
    i32::from(0x8100_u16.to_be())
}

/// The first four bytes of the MAC of any accepting slot, as a number in host byte order.
fn mac_head() -> i32 {
    let [a, b, c, d, _, _] = wire::overlay::accepting_mac(0);
    i32::from_ne_bytes([a, b, c, d])
}

fn ingress() -> Vec<Instruction> {
    assemble(vec![
        copy(R6, R1),
        // The frame must have exactly one tag, of 802.1Q.
        load32(R0, R6, VLAN_PRESENT),
        Step::DropIf(EQUAL, R0, 0),
        load32(R0, R6, VLAN_PROTO),
        Step::DropIf(NOT_EQUAL, R0, ether_type_8021q()),
        load32(R7, R6, VLAN_TCI),
        and(R7, 0x0fff),
        swap16(R7),
        copy(R1, R6),
        call(VLAN_POP),
        Step::DropIf(NOT_EQUAL, R0, 0),
        load32(R0, R6, VLAN_PRESENT),
        Step::DropIf(NOT_EQUAL, R0, 0),
        copy(R1, R6),
        set(R2, OTHER_HOST),
        call(CHANGE_TYPE),
        Step::DropIf(NOT_EQUAL, R0, 0),
        // The destination MAC becomes that of the slot for this VLAN.
        store32_value(FP, MAC, mac_head()),
        store16(FP, R7, MAC_VLAN),
        copy(R1, R6),
        set(R2, 0),
        copy(R3, FP),
        add(R3, i32::from(MAC)),
        set(R4, 6),
        set(R5, 0),
        call(STORE_BYTES),
        Step::DropIf(NOT_EQUAL, R0, 0),
    ])
}

fn egress() -> Vec<Instruction> {
    assemble(vec![
        copy(R6, R1),
        // The source MAC identifies the slot that sent the frame; the TAP itself sends no frames.
        set(R2, 6),
        copy(R3, FP),
        add(R3, i32::from(MAC)),
        set(R4, 6),
        call(LOAD_BYTES),
        Step::DropIf(NOT_EQUAL, R0, 0),
        load32(R1, FP, MAC),
        Step::DropIf(NOT_EQUAL, R1, mac_head()),
        load16(R3, FP, MAC_VLAN),
        swap16(R3),
        copy(R1, R6),
        set(R2, ether_type_8021q()),
        call(VLAN_PUSH),
        Step::DropIf(NOT_EQUAL, R0, 0),
    ])
}

// enum bpf_cmd, bpf_prog_type, bpf_attach_type.
const PROG_LOAD: c_long = 5;
const PROG_ATTACH: c_long = 8;
const SCHED_CLS: u32 = 3;
const TCX_INGRESS: u32 = 46;
const TCX_EGRESS: u32 = 47;

/// `union bpf_attr` for `BPF_PROG_LOAD`, up to the fields that Linux 4.15 knew.
#[repr(C)]
struct Load {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
}

/// `union bpf_attr` for `BPF_PROG_ATTACH`.
#[repr(C)]
struct Attach {
    target_ifindex: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
    replace_bpf_fd: u32,
    relative_fd: u32,
    expected_revision: u64,
}

/// Loads both programs, and attaches them to a TAP. Must be called once for each TAP, since programs of a second
/// call would run in addition.
pub(super) fn attach(tap: &str, index: u32) -> Result<(), KernelError> {
    for (code, attach_type) in [(ingress(), TCX_INGRESS), (egress(), TCX_EGRESS)] {
        load(&code)
            .and_then(|program| attach_one(&program, index, attach_type))
            .map_err(KernelError::refused(format!(
                "attach a BPF program to {tap}"
            )))?;
    }
    Ok(())
}

fn load(code: &[Instruction]) -> io::Result<OwnedFd> {
    // The kernel offers helpers that change frames only to programs with a GPL-compatible licence.
    let license = c"GPL";
    let mut prog_name = [0; 16];
    prog_name
        .iter_mut()
        .zip(b"warren")
        .for_each(|(to, from)| *to = *from);
    let attributes = Load {
        prog_type: SCHED_CLS,
        insn_cnt: u32::try_from(code.len()).unwrap_or(u32::MAX),
        insns: address(code.as_ptr()),
        license: address(license.as_ptr()),
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: 0,
        prog_name,
    };
    let fd = bpf(PROG_LOAD, &attributes)?;
    // SAFETY: the kernel has just created this descriptor, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn attach_one(program: &OwnedFd, index: u32, attach_type: u32) -> io::Result<()> {
    let attributes = Attach {
        target_ifindex: index,
        attach_bpf_fd: u32::try_from(program.as_raw_fd()).map_err(io::Error::other)?,
        attach_type,
        attach_flags: 0,
        replace_bpf_fd: 0,
        relative_fd: 0,
        expected_revision: 0,
    };
    bpf(PROG_ATTACH, &attributes).map(drop)
}

fn address<T>(pointer: *const T) -> u64 {
    u64::try_from(pointer.expose_provenance()).unwrap_or(0)
}

fn bpf<T>(command: c_long, attributes: &T) -> io::Result<i32> {
    // SAFETY: `attributes` is a prefix of union bpf_attr of the given size (the kernel
    // takes missing fields for zero), and the memory at its addresses outlives the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_ref(attributes),
            size_of::<T>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    i32::try_from(result).map_err(io::Error::other)
}

#[cfg(all(test, target_endian = "little"))]
mod tests {
    use super::*;

    #[track_caller]
    fn check(code: Vec<Instruction>, expected: &[u64]) {
        let words: Vec<u64> = code.into_iter().map(u64::from_le_bytes).collect();
        assert_eq!(words, expected);
    }

    #[test]
    fn ingress_has_the_instructions_that_were_tested_on_a_kernel() {
        check(
            ingress(),
            &[
                0x0000_0000_0000_16bf,
                0x0000_0000_0014_6061,
                0x0000_0000_001a_0015,
                0x0000_0000_001c_6061,
                0x0000_0081_0018_0055,
                0x0000_0000_0018_6761,
                0x0000_0fff_0000_0757,
                0x0000_0010_0000_07dc,
                0x0000_0000_0000_61bf,
                0x0000_0013_0000_0085,
                0x0000_0000_0012_0055,
                0x0000_0000_0014_6061,
                0x0000_0000_0010_0055,
                0x0000_0000_0000_61bf,
                0x0000_0003_0000_02b7,
                0x0000_0020_0000_0085,
                0x0000_0000_000c_0055,
                0x5352_5702_fff8_0a62,
                0x0000_0000_fffc_7a6b,
                0x0000_0000_0000_61bf,
                0x0000_0000_0000_02b7,
                0x0000_0000_0000_a3bf,
                0xffff_fff8_0000_0307,
                0x0000_0006_0000_04b7,
                0x0000_0000_0000_05b7,
                0x0000_0009_0000_0085,
                0x0000_0000_0002_0055,
                0xffff_ffff_0000_00b7,
                0x0000_0000_0000_0095,
                0x0000_0002_0000_00b7,
                0x0000_0000_0000_0095,
            ],
        );
    }

    #[test]
    fn egress_has_the_instructions_that_were_tested_on_a_kernel() {
        check(
            egress(),
            &[
                0x0000_0000_0000_16bf,
                0x0000_0006_0000_02b7,
                0x0000_0000_0000_a3bf,
                0xffff_fff8_0000_0307,
                0x0000_0006_0000_04b7,
                0x0000_001a_0000_0085,
                0x0000_0000_000a_0055,
                0x0000_0000_fff8_a161,
                0x5352_5702_0008_0155,
                0x0000_0000_fffc_a369,
                0x0000_0010_0000_03dc,
                0x0000_0000_0000_61bf,
                0x0000_0081_0000_02b7,
                0x0000_0012_0000_0085,
                0x0000_0000_0002_0055,
                0xffff_ffff_0000_00b7,
                0x0000_0000_0000_0095,
                0x0000_0002_0000_00b7,
                0x0000_0000_0000_0095,
            ],
        );
    }
}
