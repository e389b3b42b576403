//! The crate `tokio-fastcgi`'s hello, on one thread. usage: tokio_hello SOCKET [BYTES]
use tokio_fastcgi::{RequestResult, Requests};

fn main() {
    let path = std::env::args().nth(1).expect("SOCKET");
    let size = std::env::args().nth(2).map_or(100, |text| text.parse().expect("BYTES"));
    let body: &'static [u8] = vec![b'x'; size].leak();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("runtime");
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async move {
        let listener = tokio::net::UnixListener::bind(path).expect("bind");
        while let Ok((stream, _)) = listener.accept().await {
            tokio::task::spawn_local(async move {
                let mut requests = Requests::from_split_socket(stream.into_split(), 1, 1);
                while let Ok(Some(request)) = requests.next().await {
                    let _ = request
                        .process(|request| async move {
                            let mut out = request.get_stdout();
                            let _ = out.write(b"Content-Type: text/plain\r\n\r\n").await;
                            for part in body.chunks(65528) {
                                let _ = out.write(part).await;
                            }
                            RequestResult::Complete(0)
                        })
                        .await;
                }
            });
        }
    });
}
