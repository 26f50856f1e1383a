//! The floor under every load generator: the lightest reader of the same streams. One thread, no parsing: an event is the
//! text `data:`, its time is when the read returned, the end is an empty chunk. It keeps so many requests under way and
//! reports what it saw as one JSON line.

use std::io::{Read, Write};
use std::time::Instant;

use clap::Parser;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

#[derive(Parser)]
struct Args {
    /// Address of the server, HOST:PORT
    #[arg(long)]
    address: std::net::SocketAddr,
    /// Requests under way
    #[arg(long, default_value_t = 1)]
    concurrency: usize,
    /// Requests in all
    #[arg(long, default_value_t = 100)]
    requests: usize,
    /// Tokens to ask for
    #[arg(long, default_value_t = 32)]
    output_len: u64,
    /// Bytes of the prompt
    #[arg(long, default_value_t = 100)]
    prompt_bytes: usize,
}

struct Conn {
    stream: TcpStream,
    began: Instant,
    last: Option<Instant>,
    tail: Vec<u8>,
    written: usize,
    busy: bool,
}

fn main() -> std::io::Result<()> {
    let args = Args::parse();
    if let Ok((_, hard)) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE) {
        let _ = nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, hard, hard);
    }
    let body = format!(
        "{{\"model\":\"mock\",\"prompt\":\"{}\",\"max_tokens\":{},\"temperature\":0.0,\"stream\":true,\"stream_options\":{{\"include_usage\":true}},\"ignore_eos\":true}}",
        "x".repeat(args.prompt_bytes),
        args.output_len
    );
    let request = format!(
        "POST /v1/completions HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        args.address,
        body.len()
    );
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(1024);
    let (mut conns, mut started, mut done) = (Vec::new(), 0usize, 0usize);
    let (mut ttfts, mut gaps): (Vec<f64>, Vec<f64>) = (Vec::new(), Vec::new());
    let (mut tokens, mut failed) = (0u64, 0usize);
    let mut buffer = vec![0u8; 256 << 10];
    let whole = Instant::now();
    while started < args.requests.min(args.concurrency) {
        let began = Instant::now();
        let mut stream = TcpStream::connect(args.address)?;
        let _ = stream.set_nodelay(true);
        poll.registry().register(&mut stream, Token(started), Interest::READABLE | Interest::WRITABLE)?;
        let mut conn = Conn { stream, began, last: None, tail: Vec::new(), written: 0, busy: true };
        write(&mut conn, request.as_bytes());
        conns.push(conn);
        started += 1;
    }
    while done < args.requests {
        poll.poll(&mut events, None)?;
        for event in &events {
            let conn = &mut conns[event.token().0];
            if conn.busy && conn.written < request.len() {
                write(conn, request.as_bytes());
            }
            loop {
                let count = match conn.stream.read(&mut buffer) {
                    Ok(0) => {
                        if conn.busy {
                            conn.busy = false;
                            failed += 1;
                            done += 1;
                        }
                        break;
                    }
                    Ok(count) => count,
                    Err(_) => break,
                };
                let now = Instant::now();
                let bytes = &buffer[..count];
                let seen = memchr::memmem::find_iter(bytes, b"data: {").count();
                for _ in 0..seen {
                    match conn.last.replace(now) {
                        None => ttfts.push((now - conn.began).as_secs_f64() * 1e3),
                        Some(last) => gaps.push((now - last).as_secs_f64() * 1e3),
                    }
                }
                tokens += seen as u64;
                conn.tail.extend_from_slice(&bytes[bytes.len().saturating_sub(5)..]);
                let keep = conn.tail.len().saturating_sub(5);
                conn.tail.drain(..keep);
                if conn.tail == b"0\r\n\r\n" {
                    // The usage is an event and no token.
                    tokens -= 1;
                    gaps.pop();
                    done += 1;
                    conn.busy = false;
                    conn.last = None;
                    conn.tail.clear();
                    if started < args.requests {
                        started += 1;
                        conn.busy = true;
                        conn.began = Instant::now();
                        conn.written = 0;
                        write(conn, request.as_bytes());
                    }
                }
                if count < buffer.len() {
                    break;
                }
            }
        }
    }
    let duration = whole.elapsed().as_secs_f64();
    let mut out = std::io::stdout();
    writeln!(
        out,
        "{{\"completed\": {}, \"failed\": {failed}, \"duration\": {duration}, \"request_throughput\": {}, \"output_throughput\": {}, {}, {}}}",
        done - failed,
        (done - failed) as f64 / duration,
        tokens as f64 / duration,
        summary("ttft", &mut ttfts),
        summary("itl", &mut gaps)
    )
}

fn write(conn: &mut Conn, request: &[u8]) {
    while conn.written < request.len() {
        match conn.stream.write(&request[conn.written..]) {
            Ok(count) => conn.written += count,
            Err(_) => return,
        }
    }
}

fn summary(name: &str, values: &mut [f64]) -> String {
    values.sort_by(f64::total_cmp);
    let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
    let at = |which: f64| values.get(((values.len().max(1) - 1) as f64 * which) as usize).copied().unwrap_or(0.0);
    format!("\"mean_{name}_ms\": {mean}, \"median_{name}_ms\": {}, \"p99_{name}_ms\": {}", at(0.5), at(0.99))
}
