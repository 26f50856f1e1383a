//! HTTP clients and their TLS: the one place that decides which certificates are trusted.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// A client that asks servers directly, without a proxy. A redirect is an answer like any other, and not followed: whoever it
/// leads to is not the server that was asked, and must not get its key. `insecure`: whatever certificate is shown is accepted.
pub fn client(insecure: bool) -> reqwest::ClientBuilder {
    through_proxy(insecure).no_proxy().redirect(reqwest::redirect::Policy::none())
}

/// A client that uses the proxy of the environment.
pub fn through_proxy(insecure: bool) -> reqwest::ClientBuilder {
    reqwest::Client::builder().tls_backend_preconfigured(tls(insecure))
}

/// As [`through_proxy`], with these certificates (PEM) trusted as well; `None` where there is none in it.
pub fn with_authorities(insecure: bool, pem: &[u8]) -> Option<reqwest::ClientBuilder> {
    let mut roots = roots();
    let (added, _) = roots.add_parsable_certificates(CertificateDer::pem_slice_iter(pem).filter_map(Result::ok));
    (added > 0).then(|| reqwest::Client::builder().tls_backend_preconfigured(tls_with(insecure, roots)))
}

/// TLS with the compiled-in root certificates; with `insecure` every certificate is accepted.
pub fn tls(insecure: bool) -> rustls::ClientConfig {
    tls_with(insecure, roots())
}

fn roots() -> rustls::RootCertStore {
    rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() }
}

fn tls_with(insecure: bool, roots: rustls::RootCertStore) -> rustls::ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider));
    // The provider has every protocol version, so that this cannot fail; TLS without it would not be TLS.
    match builder.with_safe_default_protocol_versions() {
        Ok(builder) if insecure => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
            .with_no_client_auth(),
        Ok(builder) => builder.with_root_certificates(roots).with_no_client_auth(),
        Err(_) => rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth(),
    }
}

/// `--insecure`: whoever answers is believed.
#[derive(Debug)]
struct AnyCertificate(Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &rustls::pki_types::CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &rustls::pki_types::CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_redirect_is_not_followed_and_nobody_else_gets_the_key() {
        let [server, other] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let url = format!("http://{}/v1/models", server.local_addr().unwrap());
        let elsewhere = other.local_addr().unwrap();
        let answering = std::thread::spawn(move || {
            let (mut stream, _) = server.accept().unwrap();
            let _ = stream.read(&mut [0; 4096]).unwrap();
            let head = format!("HTTP/1.1 307 Temporary Redirect\r\nlocation: http://{elsewhere}/v1/models\r\n");
            stream.write_all(format!("{head}content-length: 0\r\nconnection: close\r\n\r\n").as_bytes()).unwrap();
        });
        let answer = client(false).build().unwrap().get(url).bearer_auth("key").send().await.unwrap();
        assert_eq!(answer.status(), 307);
        answering.join().unwrap();
        other.set_nonblocking(true).unwrap();
        assert!(other.accept().is_err(), "the other server was asked");
    }
}
