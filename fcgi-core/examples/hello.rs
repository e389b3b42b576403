//! The shortest responder: listens on a unix socket's path or a TCP address (argument 1) and says hello.
#![allow(clippy::print_stderr)]

use fcgi_core::responder::{NoGate, Responder, ResponderOptions};
use std::os::fd::OwnedFd;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).ok_or("usage: hello ADDRESS [BYTES]")?;
    let bytes = std::env::args().nth(2).map_or(Ok(100), |text| text.parse())?;
    let listen: OwnedFd = if address.contains('/') {
        std::os::unix::net::UnixListener::bind(&address)?.into()
    } else {
        std::net::TcpListener::bind(&address)?.into()
    };
    let mut responder = Responder::new(listen, ResponderOptions::default(), Box::new(NoGate))?;
    let body = vec![b'x'; bytes];
    let mut sink = vec![0; 65536];
    while let Some(mut request) = responder.accept()? {
        while request.read(&mut sink).is_ok_and(|count| count > 0) {}
        // An error here is the peer's: it is gone.
        let _ = request.write(b"Content-Type: text/plain\r\n\r\n");
        let _ = request.write(&body);
        let _ = request.finish();
    }
    Ok(())
}
