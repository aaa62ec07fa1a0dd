//! The page that lists every problem code; the `type` of a problem document leads to its heading.

use std::fmt::Write as _;

use actix_web::{HttpRequest, HttpResponse};

use super::{
    dto,
    error::{Code, Problem},
};

const HEAD: &str = "\
# Problems

What the API answers when it refuses. Every refusal is a problem document ([RFC 9457](https://www.rfc-editor.org/rfc/rfc9457), `application/problem+json`): `type`
leads to a heading below, `title` is the code in words, `status` repeats the HTTP status, `detail` says what was found and what is allowed, `instance` is the path that was
asked for, and `code` is stable, for scripts. `errors`, where there are several mistakes, is a list of `{ key, found, allowed }`.

The daemon itself serves this page under `/api/v1/problems`, to everybody.
";

/// Serves the page.
pub(super) async fn page(request: HttpRequest) -> Result<HttpResponse, Problem> {
    let dto::NoQuery {} = dto::query(&request)?;
    Ok(HttpResponse::Ok().content_type("text/markdown; charset=utf-8").body(text()))
}

fn text() -> String {
    let mut page = format!("{HEAD}\n| code | status |\n|---|---|\n");
    // Writing to a String can't fail.
    for code in Code::ALL {
        let _ = writeln!(page, "| [`{word}`](#{word}) | {status} |", word = code.word(), status = code.status());
    }
    for code in Code::ALL {
        let (word, status) = (code.word(), code.status());
        let _ = write!(page, "\n## {word}\n\n{status}. {} {}\n", code.meaning(), code.advice());
    }
    page
}
