//! The crate `fastcgi`'s hello. usage: fastcgi_hello SOCKET [BYTES]
use std::io::{Read, Write};
use std::os::fd::AsRawFd;

fn main() {
    let path = std::env::args().nth(1).expect("SOCKET");
    let size = std::env::args().nth(2).map_or(100, |text| text.parse().expect("BYTES"));
    let listener = std::os::unix::net::UnixListener::bind(path).expect("bind");
    let body = vec![b'x'; size];
    fastcgi::run_raw(
        move |mut request| {
            let _ = std::io::copy(&mut request.stdin().take(u64::MAX), &mut std::io::sink());
            let mut out = request.stdout();
            let _ = out.write_all(b"Content-Type: text/plain\r\n\r\n");
            let _ = out.write_all(&body);
        },
        listener.as_raw_fd(),
    );
}
