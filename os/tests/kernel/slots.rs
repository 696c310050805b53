//! Slots: their settings, the frames that pass through them, and their counters.

use crate::{
    frames::{self, Tap},
    netns::{NOBODY, TestNamespace, check, make_slots, me, run, slot, until_ready},
};
use os::kernel::{self, Kernel};
use policies::names::Transport;
use std::{fs, path::Path};

#[test]
fn slots_are_created_with_their_names_settings_and_aliases() {
    check(|netns| async move {
        let k = &netns.kernel;
        make_slots(k).await;
        assert_eq!(k.slots().len(), 18);
        k.set_up(slot("wrnu.2"), me()).await.unwrap();
        for (name, mac, up) in [
            ("wrn0", "02:58:00:00:00:07", true),
            ("wrn11", "02:58:00:00:00:07", true),
            ("wrnu.2", "02:57:52:53:00:02", true),
            ("wrnt.4", "02:57:52:53:00:04", false),
        ] {
            let link = run(&format!("ip -d link show {name}"));
            let alias = format!("alias warren {}", netns.folder.path().display());
            for part in [mac, "mtu 1400", "addrgenmode none", &alias] {
                assert!(link.contains(part), "{part}: {link}");
            }
            assert_eq!(link.contains(",UP"), up, "{link}");
            let addresses = run(&format!("ip -6 addr show {name}"));
            assert!(
                addresses.contains("inet6 fe80::10:0:7/64 scope link nodad"),
                "{addresses}"
            );
            assert_eq!(addresses.matches("inet6").count(), 1, "{addresses}");
            for key in ["accept_ra", "accept_redirects", "autoconf"] {
                let path = format!("/proc/sys/net/ipv6/conf/{name}/{key}");
                assert_eq!(fs::read_to_string(path).unwrap(), "0\n", "{name} {key}");
            }
        }
        assert!(
            run("ip -d link show wrn3").contains("tap pi off vnet_hdr off persist on user nobody")
        );
        assert_eq!(run("ip -6 addr show wrnu"), "");
    });
}

#[test]
fn a_frame_with_tag_n_reaches_slot_n_and_the_answer_has_tag_n() {
    check(|netns| async move {
        let (tap, k) = open_server_tap(&netns).await;
        for vlan in [2, 4] {
            tap.send(&frames::echo(
                frames::mac(vlan),
                &frames::tag(vlan),
                vlan,
                8,
            ));
            assert_eq!(tap.answers(), [(vlan, frames::mac(vlan), vlan)]);
            tap.send(&frames::echo(
                frames::ALL_NODES,
                &frames::tag(vlan),
                vlan,
                8,
            ));
            assert_eq!(
                tap.answers(),
                [(vlan, frames::mac(vlan), vlan)],
                "multicast"
            );
        }
        // 1400 bytes of IPv6: 40 of header, 8 of echo, the rest payload.
        tap.send(&frames::echo(frames::mac(2), &frames::tag(2), 9, 1400 - 48));
        assert_eq!(
            tap.answers(),
            [(2, frames::mac(2), 9)],
            "as large as a packet may be"
        );
        k.set_down(slot("wrnu.2")).await.unwrap();
        tap.send(&frames::echo(frames::mac(2), &frames::tag(2), 10, 8));
        tap.send(&frames::echo(frames::mac(4), &frames::tag(4), 11, 8));
        assert_eq!(
            tap.answers(),
            [(4, frames::mac(4), 11)],
            "the slot that is down is silent"
        );
    });
}

#[test]
fn a_frame_of_no_slot_reaches_no_link() {
    check(|netns| async move {
        let (tap, _kernel) = open_server_tap(&netns).await;
        let two = frames::mac(2);
        let bad: [(&str, [u8; 6], Vec<u8>); 7] = [
            ("unknown VLAN, multicast", frames::ALL_NODES, frames::tag(6)),
            ("unknown VLAN, MAC of another slot", two, frames::tag(6)),
            ("VLAN 1", two, frames::tag(1)),
            ("VLAN 4095", two, frames::tag(4095)),
            ("untagged", two, vec![]),
            ("802.1ad", two, vec![0x88, 0xa8, 0, 2]),
            (
                "two tags",
                frames::mac(4),
                [frames::tag(2), frames::tag(4)].concat(),
            ),
        ];
        for (what, mac, tags) in bad {
            tap.send(&frames::echo(mac, &tags, 66, 8));
            // The answer to a good frame behind it shows that the kernel has processed the bad one.
            tap.send(&frames::echo(two, &frames::tag(2), 67, 8));
            assert_eq!(tap.answers(), [(2, two, 67)], "{what}");
        }
    });
}

/// Opens the UDP server's TAP as OpenVPN would, with slots 2 and 4 up and slot 3 down.
async fn open_server_tap(netns: &TestNamespace) -> (Tap, Kernel) {
    let k = netns.kernel.clone();
    k.make_server_tap(Transport::Udp, NOBODY).await.unwrap();
    k.make_accepting_slots(Transport::Udp, 2..=4, me())
        .await
        .unwrap();
    let tap = Tap::open("wrnu");
    for name in ["wrnu.2", "wrnu.4"] {
        k.set_up(slot(name), me()).await.unwrap();
        run(&format!(
            "ip -6 neigh replace fe80::9 lladdr 02:00:00:00:00:09 dev {name}"
        ));
    }
    until_ready(&["wrnu.2", "wrnu.4"]);
    (tap, k)
}

#[test]
fn each_slot_counts_its_own_frames_and_no_others() {
    check(|netns| async move {
        let (tap, k) = open_server_tap(&netns).await;
        let before = k.counters().unwrap();
        for number in 0..10 {
            tap.send(&frames::echo(frames::mac(2), &frames::tag(2), number, 52));
            tap.answers();
        }
        let after = k.counters().unwrap();
        assert_eq!(after.keys().copied().collect::<Vec<_>>(), k.slots());
        let rx = |name: &str| {
            let (before, after) = (before[&slot(name)], after[&slot(name)]);
            (
                after.rx_packets - before.rx_packets,
                after.rx_bytes - before.rx_bytes,
            )
        };
        // Ethernet header, IPv6 header, echo header, payload.
        assert_eq!(rx("wrnu.2"), (10, 10 * (14 + 40 + 8 + 52)));
        assert_eq!(rx("wrnu.4"), (0, 0));
        let tx = after[&slot("wrnu.2")].tx_packets - before[&slot("wrnu.2")].tx_packets;
        assert!(tx >= 10, "{tx}");
        run("ip link del wrnu.3");
        assert_eq!(
            k.counters().unwrap().len(),
            2,
            "a slot that somebody deleted is missing"
        );
    });
}

#[test]
fn a_silenced_slot_sends_no_multicast_until_it_is_unsilenced() {
    check(|netns| async move {
        let k = &netns.kernel;
        k.make_dialling_slots(0..3, me(), NOBODY).await.unwrap();
        // The link has had no carrier yet, so the kernel has not added the route.
        k.unsilence(slot("wrn1")).await.unwrap();
        let _carriers = ["wrn0", "wrn1", "wrn2"].map(Tap::open);
        let can_send = |slots: [&str; 3]| {
            slots.map(|name| {
                let socket = std::net::UdpSocket::bind("[::]:0").unwrap();
                let index = k.index(slot(name)).unwrap();
                let all = std::net::SocketAddrV6::new("ff02::1:6".parse().unwrap(), 6696, 0, index);
                socket.send_to(b"hello", all).is_ok()
            })
        };
        let names = ["wrn0", "wrn1", "wrn2"];
        until_ready(&names);
        assert_eq!(can_send(names), [true, true, true]);
        let routes = run("ip -6 route show table local type multicast");
        for _ in 0..2 {
            k.silence(slot("wrn1")).await.unwrap();
            assert_eq!(can_send(names), [true, false, true]);
        }
        for _ in 0..2 {
            k.unsilence(slot("wrn1")).await.unwrap();
            assert_eq!(can_send(names), [true, true, true]);
        }
        let sorted = |text: &str| {
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        let again = run("ip -6 route show table local type multicast");
        assert_eq!(sorted(&again), sorted(&routes));
        k.silence(slot("wrn1")).await.unwrap();
        k.set_down(slot("wrn1")).await.unwrap();
        k.unsilence(slot("wrn1")).await.unwrap();
        k.set_up(slot("wrn1"), me()).await.unwrap();
        until_ready(&names);
        assert_eq!(can_send(names), [true, true, true], "down and up again");
        assert!(run("ip -6 addr show wrn1").contains("fe80::10:0:7/64 scope link nodad"));
    });
}

#[test]
fn an_accepting_slot_is_created_when_it_is_first_set_up() {
    check(|netns| async move {
        let k = &netns.kernel;
        k.make_server_tap(Transport::Udp, NOBODY).await.unwrap();
        k.apply_ipv4(
            wire::overlay::Network4::new("10.5.0.0/16".parse().unwrap()),
            me(),
        )
        .await
        .unwrap();
        k.set_down(slot("wrnu.3")).await.unwrap();
        assert_eq!(k.slots(), []);
        for _ in 0..2 {
            k.set_up(slot("wrnu.3"), me()).await.unwrap();
            assert_eq!(k.slots(), [slot("wrnu.3")]);
        }
        let _carrier = Tap::open("wrnu");
        until_ready(&["wrnu.3"]);
        assert!(run("ip -6 addr show wrnu.3").contains("fe80::10:0:7/64 scope link nodad"));
        assert!(run("ip link show wrnu.3").contains("alias warren "));
        let forwards = |family: &str| {
            fs::read_to_string(format!("/proc/sys/net/{family}/conf/wrnu.3/forwarding")).unwrap()
        };
        assert_eq!(forwards("ipv4").trim(), "1");
    });
}

#[test]
fn errors_name_the_link_that_cannot_be_created() {
    check(|netns| async move {
        let k = &netns.kernel;
        let text = |error: kernel::KernelError| wire::errors::Chain(&error).to_string();
        let error = k
            .make_accepting_slots(Transport::Tcp, 2..=2, me())
            .await
            .unwrap_err();
        assert_eq!(text(error), "the TAP wrnt was not created");
        k.make_server_tap(Transport::Udp, NOBODY).await.unwrap();
        for vlan in [0, 1, 4095] {
            let error = k
                .make_accepting_slots(Transport::Udp, vlan..=vlan, me())
                .await
                .unwrap_err();
            assert_eq!(text(error), format!("wrnu.{vlan} cannot be a slot"));
        }
        run("ip tuntap add wrn0 mode tap");
        let error = k.make_dialling_slots(0..1, me(), NOBODY).await.unwrap_err();
        assert_eq!(
            text(error),
            "cannot create TAP wrn0: Device or resource busy (os error 16)"
        );
        let error = k.set_up(slot("wrn5"), me()).await.unwrap_err();
        assert_eq!(text(error), "there is no slot wrn5");
    });
}

#[test]
fn a_child_gets_a_tun_node_that_it_may_open_and_others_may_not() {
    check(|netns| async move {
        use std::os::unix::fs::{MetadataExt, PermissionsExt};
        assert_eq!(
            kernel::make_tun_node(&netns.ledger(), 0, 0).unwrap(),
            Path::new(kernel::TUN)
        );
        let open_to_all = fs::metadata(kernel::TUN).unwrap().permissions().mode() & 0o6 == 0o6;
        let wanted = netns.folder.path().join("dev/warren/tun");
        for _ in 0..2 {
            let node = kernel::make_tun_node(&wanted, NOBODY, NOBODY).unwrap();
            if open_to_all {
                assert_eq!(node, Path::new(kernel::TUN));
                continue;
            }
            assert_eq!(node, wanted);
            let made = fs::metadata(&node).unwrap();
            assert_eq!(
                (made.mode() & 0o777, made.uid(), made.gid()),
                (0o660, 0, NOBODY)
            );
            assert_eq!(made.rdev(), fs::metadata(kernel::TUN).unwrap().rdev());
        }
    });
}

#[test]
fn seventy_two_slots_are_created_within_a_second() {
    check(|netns| async move {
        let clock = os::clock::Clock::boottime();
        let k = &netns.kernel;
        let started = clock.now();
        k.make_dialling_slots(0..12, me(), NOBODY).await.unwrap();
        for transport in [Transport::Udp, Transport::Tcp] {
            k.make_server_tap(transport, NOBODY).await.unwrap();
            k.make_accepting_slots(transport, 2..=31, me())
                .await
                .unwrap();
        }
        let took = clock.now().since(started);
        assert_eq!(k.slots().len(), 72);
        assert!(took.as_secs() < 1, "{took:?}");
    });
}

#[test]
fn the_maximum_number_of_slots_can_be_created_and_removed() {
    check(|netns| async move {
        let k = &netns.kernel;
        k.make_dialling_slots(0..30, me(), NOBODY).await.unwrap();
        k.make_server_tap(Transport::Udp, NOBODY).await.unwrap();
        k.make_accepting_slots(Transport::Udp, 2..=251, me())
            .await
            .unwrap();
        assert_eq!(k.counters().unwrap().len(), 280);
        assert_eq!(k.sweep(&netns.ledger()).await.unwrap().links, 281);
        assert_eq!(k.counters().unwrap().len(), 0);
    });
}
