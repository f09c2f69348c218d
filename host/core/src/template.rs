//! Texts with `${regatta.…}` in them, as the user data of cloud-init.
//!
//! The marks cannot be mistaken for a shell's variables (whose names have no dot) nor for cloud-init's own Jinja templates.
//! `$${regatta.name}` stands for the text `${regatta.name}`.

use std::net::Ipv4Addr;

const OPEN: &str = "${regatta.";

/// What a template may ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variables {
    /// Name of the instance, for example `web-7`.
    pub name: String,
    /// Name of the set.
    pub set: String,
    /// Ordinal within the set.
    pub index: u32,
    /// Generation of the manifest that the instance is made from.
    pub generation: u64,
    /// Where the host reaches the instance.
    pub address: Ipv4Addr,
    /// The guest's own address.
    pub guest_address: Ipv4Addr,
}

/// The names of the variables.
pub const VARIABLES: [&str; 6] = ["name", "set", "index", "generation", "address", "guest_address"];

/// A mark that cannot be replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateProblem {
    /// Line within the text, from 1.
    pub line: usize,
    /// The variable that was asked for; none when the mark is not closed.
    pub variable: Option<String>,
}

impl Variables {
    fn get(&self, variable: &str) -> Option<String> {
        Some(match variable {
            "name" => self.name.clone(),
            "set" => self.set.clone(),
            "index" => self.index.to_string(),
            "generation" => self.generation.to_string(),
            "address" => self.address.to_string(),
            "guest_address" => self.guest_address.to_string(),
            _ => return None,
        })
    }
}

/// A piece of a template.
enum Piece<'t> {
    Text(&'t str),
    Variable(&'t str),
    Unclosed,
}

/// Every mark that [`render`] could not replace.
#[must_use]
pub fn check(template: &str) -> Vec<TemplateProblem> {
    let mut problems = Vec::new();
    walk(template, |piece, at| {
        let problem = match piece {
            Piece::Variable(name) if !VARIABLES.contains(&name) => Some(name.to_owned()),
            Piece::Unclosed => None,
            Piece::Text(_) | Piece::Variable(_) => return,
        };
        let line = template.get(..at).map_or(1, |before| before.matches('\n').count() + 1);
        problems.push(TemplateProblem { line, variable: problem });
    });
    problems
}

/// The text with all marks replaced. What [`check`] complains about stays as it is.
#[must_use]
pub fn render(template: &str, variables: &Variables) -> String {
    let mut text = String::with_capacity(template.len());
    walk(template, |piece, _| match piece {
        Piece::Text(piece) => text.push_str(piece),
        Piece::Unclosed => text.push_str(OPEN),
        Piece::Variable(name) => match variables.get(name) {
            Some(value) => text.push_str(&value),
            None => {
                text.push_str(OPEN);
                text.push_str(name);
                text.push('}');
            }
        },
    });
    text
}

fn walk<'t>(template: &'t str, mut meet: impl FnMut(Piece<'t>, usize)) {
    let mut at = 0;
    while let Some(found) = template.get(at..).and_then(|rest| rest.find(OPEN)) {
        let mark = at + found;
        let escaped = mark > at && template.as_bytes().get(mark - 1) == Some(&b'$');
        if escaped {
            meet(Piece::Text(&template[at..mark - 1]), at);
            meet(Piece::Text(OPEN), mark);
            at = mark + OPEN.len();
            continue;
        }
        meet(Piece::Text(&template[at..mark]), at);
        let inside = &template[mark + OPEN.len()..];
        let name = inside.find(['}', '\n']).filter(|end| inside.as_bytes().get(*end) == Some(&b'}'));
        match name {
            Some(end) => {
                meet(Piece::Variable(&inside[..end]), mark);
                at = mark + OPEN.len() + end + 1;
            }
            None => {
                meet(Piece::Unclosed, mark);
                at = mark + OPEN.len();
            }
        }
    }
    meet(Piece::Text(&template[at..]), at);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn variables() -> Variables {
        Variables {
            name: "web-7".into(),
            set: "web".into(),
            index: 7,
            generation: 3,
            address: Ipv4Addr::new(10, 213, 0, 9),
            guest_address: Ipv4Addr::new(10, 88, 0, 2),
        }
    }

    #[test]
    fn every_variable_has_a_value() {
        for name in VARIABLES {
            let text = format!("a ${{regatta.{name}}} b");
            assert_eq!(check(&text), []);
            assert_eq!(
                render(&text, &variables()),
                format!("a {} b", variables().get(name).expect("a value"))
            );
        }
    }

    #[test]
    fn shells_and_jinja_are_left_alone() {
        let text = "echo ${HOME} $regatta {{ v1.name }} $${regatta.name} ${regatta.name}${regatta.index}";
        assert_eq!(check(text), []);
        let rendered = "echo ${HOME} $regatta {{ v1.name }} ${regatta.name} web-77";
        assert_eq!(render(text, &variables()), rendered);
    }

    #[test]
    fn problems_name_the_line_and_the_variable() {
        let text = "one\n${regatta.nam} ${regatta.name\nthree ${regatta.}";
        let problem =
            |line, variable: Option<&str>| TemplateProblem { line, variable: variable.map(str::to_owned) };
        assert_eq!(check(text), [problem(2, Some("nam")), problem(2, None), problem(3, Some(""))]);
        assert_eq!(render(text, &variables()), text, "what cannot be replaced stays");
    }

    proptest! {
        #[test]
        fn any_text_is_judged_and_rendered(text in "(\\$|\\{|\\}|regatta\\.|name|\n|ü|x){0,20}") {
            let rendered = render(&text, &variables());
            if !text.contains(OPEN) {
                prop_assert_eq!(rendered, text);
            }
        }
    }
}
