//! A rule in words, for those who look for it in `nft list ruleset`.

use serde_json::Value;

/// A rule in words close to those of `nft list ruleset`.
pub(super) fn describe(rule: &[Value]) -> String {
    let words: Vec<_> = rule.iter().filter_map(describe_statement).collect();
    words.join(" ")
}

fn describe_statement(statement: &Value) -> Option<String> {
    let (kind, value) = statement.as_object()?.iter().next()?;
    Some(match kind.as_str() {
        "match" => {
            let left = name(&value["left"]);
            let operator = if value["op"] == "!=" { "!= " } else { "" };
            format!("{left} {operator}{}", value["right"].to_string().replace('"', ""))
        }
        "counter" => return None,
        "unknown" => value.as_str()?.to_owned(),
        "jump" | "goto" => format!("{kind} {}", value["target"].as_str().unwrap_or("?")),
        "vmap" => format!("vmap {}", value["data"].to_string().replace('"', "")),
        kind => kind.to_owned(),
    })
}

/// What a rule asks about.
fn name(left: &Value) -> String {
    let word = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    let all = |values: &Value, between: &str| {
        let names: Vec<_> = values.as_array().into_iter().flatten().map(name).collect();
        names.join(between)
    };
    match left.as_object().and_then(|object| object.iter().next()) {
        Some((kind, value)) => match kind.as_str() {
            "meta" => word(&value["key"]),
            "payload" => format!("{} {}", word(&value["protocol"]), word(&value["field"])),
            "ct" | "physdev" => format!("{kind} {}", word(&value["key"])),
            "fib" => format!("fib {} {}", all(&value["flags"], " . "), word(&value["result"])),
            "concat" => all(value, " . "),
            "&" => all(value, " & "),
            _ => left.to_string(),
        },
        None => left.to_string().replace('"', ""),
    }
}
