//! `warren join` and the registry get SIGKILL at random moments, and answers are lost: a repeated `warren join` costs no
//! second certificate, use or prefix.

use anyhow::{Context, Result, bail, ensure};
use lab::{
    is_skipped_without_root,
    process::Process,
    progress::progress,
    registry_connection::connect_tcp,
    standalone_registry::StandaloneRegistry,
    wait::{pause, wait_until},
};
use rusqlite::{Connection, OpenFlags};
use std::{
    fs,
    io::{Read, Write},
    net::{Ipv6Addr, Shutdown, TcpListener, TcpStream},
    os::unix::fs::MetadataExt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// Interrupted attempts of each kind.
const TRIES: u32 = 50;
/// Answers that a proxy withholds.
const CUT_ANSWERS: u32 = 20;
/// Longest time that one `warren join` may take.
const JOIN_TIMEOUT: Duration = Duration::from_secs(20);
/// Most calls of `warren join` after an interrupted one; a second one finds the registry running.
const MAX_REPETITIONS: usize = 3;
/// Port of the proxy in front of the registry.
const PROXY_PORT: u16 = 9444;
/// The type of TLS records that carry encrypted data (RFC 8446, section 5.1).
const APPLICATION_DATA: u8 = 23;
/// Bytes of the registry's answer to a claim, at least; its session tickets are shorter.
const MIN_ANSWER_BYTES: usize = 2000;

/// What the registry's database has: certificates, prefixes, and for all invitations together the number of
/// invitations, their uses, and the most uses of one.
type Counts = (u32, u32, (u32, u32, u32));

fn counts(registry: &StandaloneRegistry) -> Result<Counts> {
    let read_only = OpenFlags::SQLITE_OPEN_READ_ONLY;
    let database = Connection::open_with_flags(registry.database(), read_only)?;
    database.busy_timeout(Duration::from_secs(5))?;
    let count = |query: &str| database.query_row(query, [], |row| row.get(0));
    Ok((
        count("SELECT count(*) FROM certificates")?,
        count("SELECT count(*) FROM prefixes")?,
        (
            count("SELECT count(*) FROM invitations")?,
            count("SELECT coalesce(sum(used), 0) FROM invitations")?,
            count("SELECT coalesce(max(used), 0) FROM invitations")?,
        ),
    ))
}

/// Checks that each of the machines has one certificate and one prefix, and used its invitation once.
fn check_counts(registry: &StandaloneRegistry, machines: u32) -> Result<()> {
    let expected = (machines, machines, (machines, machines, 1));
    let found = counts(registry)?;
    ensure!(found == expected, "{found:?} instead of {expected:?}");
    Ok(())
}

fn wait_for_join(join: &Process) -> Result<bool> {
    let status = join.wait_for_exit(JOIN_TIMEOUT);
    Ok(status
        .context("warren join did not end within 20 s")?
        .success())
}

/// Repeats `warren join` until it succeeds, and checks the files of the machine. A machine that has joined already is
/// left alone.
fn join_again(registry: &StandaloneRegistry, invitation: &str, machine: &str) -> Result<()> {
    let etc = registry.folder().join(machine).join("etc/warren");
    let has_joined = || etc.join("warren.yaml").exists();
    for _ in 0..MAX_REPETITIONS {
        if has_joined() {
            break;
        }
        check_pending_key(registry, machine)?;
        wait_for_join(&registry.start_join(invitation, machine)?)?;
    }
    ensure!(has_joined(), "{machine} has not joined");
    let refused = registry.start_join(invitation, machine)?;
    ensure!(!wait_for_join(&refused)?, "{machine} joined twice");
    let message = refused.log_tail(1);
    ensure!(message.contains("has joined already"), "{message}");
    check_files(registry, machine)
}

/// Checks that nobody else may read the key with which the machine is about to join.
fn check_pending_key(registry: &StandaloneRegistry, machine: &str) -> Result<()> {
    let identity = registry.folder().join(machine).join("var/lib/warren");
    for name in [
        "node.key",
        "node.key.join",
        "node.key.join.new",
        "node.key.new",
    ] {
        if let Ok(metadata) = identity.join(name).symlink_metadata() {
            let mode = metadata.mode() & 0o7777;
            ensure!(metadata.is_file() && mode == 0o600, "{name}: {mode:o}");
        }
    }
    Ok(())
}

/// Checks that the machine has exactly the files of a node, and the certificate that the registry stored.
fn check_files(registry: &StandaloneRegistry, machine: &str) -> Result<()> {
    let root = registry.folder().join(machine);
    let mut names = Vec::new();
    for folder in ["etc/warren", "var/lib/warren"] {
        for entry in fs::read_dir(root.join(folder))? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    let expected = [
        "ca.crt",
        "network.json",
        "node.crt",
        "node.key",
        "tls-crypt.key",
        "warren.yaml",
    ];
    ensure!(names == expected, "{machine} has the files {names:?}");
    check_pending_key(registry, machine)?;
    let certificate = fs::read_to_string(root.join("var/lib/warren/node.crt"))?;
    let database =
        Connection::open_with_flags(registry.database(), OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let query = "SELECT count(*) FROM certificates WHERE certificate = ?1";
    let stored: u32 = database.query_row(query, [certificate], |row| row.get(0))?;
    ensure!(
        stored == 1,
        "the registry stored {stored} such certificates"
    );
    Ok(())
}

/// What gets SIGKILL.
#[derive(Clone, Copy, Debug)]
enum Killed {
    Join,
    Registry,
}

/// Kills one side at a random moment of a join.
fn interrupt(
    registry: &StandaloneRegistry,
    killed: Killed,
    after: Duration,
    invitation: &str,
    machine: &str,
) -> Result<()> {
    let join = registry.start_join(invitation, machine)?;
    pause(after);
    match killed {
        Killed::Join => join.kill(),
        Killed::Registry => {
            registry.kill();
            registry.start_again()?;
            wait_for_join(&join)?;
        }
    }
    Ok(())
}

/// The time that one undisturbed join takes.
fn join_duration(registry: &StandaloneRegistry) -> Result<Duration> {
    let invitation = registry.create_invitation(3)?;
    let start = Instant::now();
    let join = registry.start_join(&invitation, "undisturbed")?;
    ensure!(wait_for_join(&join)?, "{}", join.log_tail(3));
    let duration = start.elapsed();
    check_files(registry, "undisturbed")?;
    Ok(duration)
}

#[test]
fn a_join_that_was_killed_at_any_moment_is_repeated_without_a_second_certificate() -> Result<()> {
    if is_skipped_without_root("join_interrupted") {
        return Ok(());
    }
    let seed = fastrand::u64(..);
    progress(format!("join_interrupted: seed {seed}"));
    let mut random = fastrand::Rng::with_seed(seed);
    let registry = StandaloneRegistry::start(&[], &[])?;
    let longest = join_duration(&registry)?;
    let (mut machines, mut issued_before_kill) = (1, 0);
    for killed in [Killed::Join, Killed::Registry] {
        for number in 0..TRIES {
            let machine = format!("{killed:?}-{number}");
            let after = longest.mul_f64(random.f64() * 1.1);
            // Three uses, so that a second one would be counted.
            let invitation = registry.create_invitation(3)?;
            let context = || format!("seed {seed}, {machine} after {after:?}");
            interrupt(&registry, killed, after, &invitation, &machine).with_context(context)?;
            issued_before_kill += counts(&registry)?.0 - machines;
            join_again(&registry, &invitation, &machine).with_context(context)?;
            machines += 1;
            check_counts(&registry, machines).with_context(context)?;
        }
    }
    let (certificates, prefixes, (_, uses, _)) = counts(&registry)?;
    progress(format!(
        "join_interrupted: {} tries within {longest:?}, {issued_before_kill} of them issued before the repetition: \
         {certificates} certificates, {uses} uses, {prefixes} prefixes of {machines} machines",
        2 * TRIES
    ));
    Ok(())
}

/// Forwards connections to the registry. While `should_cut` is set, it withholds what the registry answers to a request,
/// and closes the connection once the answer has arrived.
struct Proxy {
    should_cut: AtomicBool,
    cut_answers: AtomicU32,
}

impl Proxy {
    fn serve(&self, listener: &TcpListener) -> Result<()> {
        for client in listener.incoming() {
            let (client, registry) = (client?, connect_tcp(None)?);
            // Either side may close its connection at any moment.
            self.forward(&client, &registry).ok();
        }
        Ok(())
    }

    fn forward(&self, client: &TcpStream, registry: &TcpStream) -> Result<()> {
        let has_request = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                forward_requests(client, registry, &has_request).ok();
                registry.shutdown(Shutdown::Write).ok();
            });
            let outcome = self.forward_answers(client, registry, &has_request);
            client.shutdown(Shutdown::Both).ok();
            registry.shutdown(Shutdown::Both).ok();
            outcome
        })
    }

    fn forward_answers(
        &self,
        mut client: &TcpStream,
        mut registry: &TcpStream,
        has_request: &AtomicBool,
    ) -> Result<()> {
        let (mut buffer, mut withheld) = ([0; 8192], 0);
        loop {
            let count = registry.read(&mut buffer)?;
            if count == 0 {
                return Ok(());
            }
            if self.should_cut.load(Ordering::SeqCst) && has_request.load(Ordering::SeqCst) {
                withheld += count;
                if withheld >= MIN_ANSWER_BYTES {
                    self.cut_answers.fetch_add(1, Ordering::SeqCst);
                    return Ok(());
                }
            } else {
                client.write_all(buffer.get(..count).unwrap_or_default())?;
            }
        }
    }
}

/// Forwards TLS records. The first one with encrypted data ends the handshake; the second one is a request.
fn forward_requests(
    mut client: &TcpStream,
    mut registry: &TcpStream,
    has_request: &AtomicBool,
) -> Result<()> {
    let mut encrypted_records = 0;
    loop {
        let mut head = [0; 5];
        client.read_exact(&mut head)?;
        let [kind, _, _, high, low] = head;
        let mut body = vec![0; usize::from(u16::from_be_bytes([high, low]))];
        client.read_exact(&mut body)?;
        encrypted_records += usize::from(kind == APPLICATION_DATA);
        if encrypted_records > 1 {
            has_request.store(true, Ordering::SeqCst);
        }
        registry.write_all(&head)?;
        registry.write_all(&body)?;
    }
}

#[test]
fn a_join_whose_answer_was_lost_is_repeated_without_a_second_certificate() -> Result<()> {
    if is_skipped_without_root("join_interrupted: lost answers") {
        return Ok(());
    }
    let registry = StandaloneRegistry::start(&[], &[])?;
    let proxy = Arc::new(Proxy {
        should_cut: AtomicBool::new(true),
        cut_answers: AtomicU32::new(0),
    });
    registry.run_inside(|| {
        let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, PROXY_PORT))?;
        let proxy = Arc::clone(&proxy);
        // The thread stays in the namespace, and ends with the test.
        thread::spawn(move || proxy.serve(&listener));
        Ok(())
    })?;
    for number in 0..CUT_ANSWERS {
        let machine = format!("cut-{number}");
        let invitation = registry.create_invitation(3)?;
        let Some((before, after)) = invitation.split_once(":9443/") else {
            bail!("the invitation names no port 9443");
        };
        let by_proxy = format!("{before}:{PROXY_PORT}/{after}");
        proxy.should_cut.store(true, Ordering::SeqCst);
        let join = registry.start_join(&by_proxy, &machine)?;
        ensure!(!wait_for_join(&join)?, "the answer was not lost");
        let cut = wait_until(JOIN_TIMEOUT, || {
            (proxy.cut_answers.load(Ordering::SeqCst) == number + 1).then_some(())
        });
        cut.context("the proxy has withheld no answer")?;
        check_counts(&registry, number + 1).context("after the lost answer")?;
        proxy.should_cut.store(false, Ordering::SeqCst);
        join_again(&registry, &by_proxy, &machine)?;
        check_counts(&registry, number + 1).context("after the repetition")?;
    }
    let (certificates, prefixes, (_, uses, _)) = counts(&registry)?;
    progress(format!(
        "join_interrupted: {CUT_ANSWERS} lost answers: {certificates} certificates, {uses} uses, {prefixes} prefixes"
    ));
    Ok(())
}
