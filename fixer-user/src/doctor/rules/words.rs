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
            let left = &value["left"];
            let left = match (left["meta"]["key"].as_str(), left["payload"]["field"].as_str()) {
                (Some(key), _) => key.to_owned(),
                (_, Some(field)) => {
                    format!("{} {field}", left["payload"]["protocol"].as_str().unwrap_or("?"))
                }
                _ => left.to_string(),
            };
            let operator = if value["op"] == "!=" { "!= " } else { "" };
            format!("{left} {operator}{}", value["right"].to_string().replace('"', ""))
        }
        "counter" => return None,
        "jump" | "goto" => format!("{kind} {}", value["target"].as_str().unwrap_or("?")),
        "vmap" => format!("vmap {}", value["data"].to_string().replace('"', "")),
        kind => kind.to_owned(),
    })
}
