//! Writes many small mistakes into a copy of the sources, all at once: each is behind a question, `crate::mutant(N)`, that a
//! variable of the environment answers when the tests run. So one build serves all mutants. Called by scripts/mutants.
//!
//! Usage: `mutate SRC FILE…` changes the files (relative to SRC) in place and prints a line for each mutant: number, file,
//! line, what it does.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{Span, TokenStream, TokenTree};
use quote::{ToTokens, quote};
use syn::spanned::Spanned;
use syn::visit::Visit;
use syn::visit_mut::{self, VisitMut};
use syn::{Attribute, BinOp, Block, Expr, File, Item, Lit, ReturnType, Signature, Type, UnOp, parse_quote};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let root = PathBuf::from(arguments.next().expect("mutate SRC FILE…"));
    let chosen: Vec<String> = arguments.collect();
    let all = parse_all(&root);
    let kept = needed_in_constants(&all, &chosen);
    let mut next = 1;
    for (path, mut file) in all {
        let name = path.strip_prefix(&root).expect("below it").to_str().expect("text").to_owned();
        if chosen.contains(&name) {
            let mut mutator = Mutator { kept: &kept, file: &name, next, inside: 0 };
            mutator.visit_file_mut(&mut file);
            next = mutator.next;
            fs::write(&path, prettyplease::unparse(&file)).expect("written");
        }
    }
    let library = root.join("lib.rs");
    let text = fs::read_to_string(&library).expect("there");
    let asked = "\n/// Whether this mutant is the one that is tried.\npub fn mutant(number: u32) -> bool {\n    \
        static TRIED: std::sync::OnceLock<u32> = std::sync::OnceLock::new();\n    \
        *TRIED.get_or_init(|| std::env::var(\"NIGHTBUS_MUTANT\").ok().and_then(|n| n.parse().ok()).unwrap_or(0)) == number\n}\n";
    // The inner attribute has to come before the items, and after the module's own comment.
    let (head, rest) = text.split_at(text.find("\npub mod").expect("modules"));
    fs::write(&library, format!("{head}\n#![allow(warnings)]\n{rest}{asked}")).expect("written");
}

fn parse_all(folder: &Path) -> Vec<(PathBuf, File)> {
    let mut found = Vec::new();
    let mut entries: Vec<_> =
        fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            found.extend(parse_all(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("text");
            found.push((path, syn::parse_file(&text).expect("Rust")));
        }
    }
    found
}

/// Names of functions that constants need: those stay `const`, and have no mutants. The others lose their `const`.
fn needed_in_constants(all: &[(PathBuf, File)], chosen: &[String]) -> BTreeSet<String> {
    struct Constants {
        needed: BTreeSet<String>,
        functions: Vec<(String, bool, BTreeSet<String>)>,
        is_chosen: bool,
    }
    impl Constants {
        fn function(&mut self, signature: &Signature, block: &Block) {
            if signature.constness.is_some() {
                let names = identifiers(block.to_token_stream());
                self.functions.push((signature.ident.to_string(), self.is_chosen, names));
            }
        }
    }
    impl<'ast> Visit<'ast> for Constants {
        fn visit_item_const(&mut self, item: &'ast syn::ItemConst) {
            self.needed.extend(identifiers(item.expr.to_token_stream()));
        }
        fn visit_impl_item_const(&mut self, item: &'ast syn::ImplItemConst) {
            self.needed.extend(identifiers(item.expr.to_token_stream()));
        }
        fn visit_item_static(&mut self, item: &'ast syn::ItemStatic) {
            self.needed.extend(identifiers(item.expr.to_token_stream()));
        }
        fn visit_item_macro(&mut self, item: &'ast syn::ItemMacro) {
            self.needed.extend(identifiers(item.to_token_stream()));
        }
        fn visit_type_array(&mut self, array: &'ast syn::TypeArray) {
            self.needed.extend(identifiers(array.len.to_token_stream()));
        }
        fn visit_expr_repeat(&mut self, repeat: &'ast syn::ExprRepeat) {
            self.needed.extend(identifiers(repeat.len.to_token_stream()));
            syn::visit::visit_expr_repeat(self, repeat);
        }
        fn visit_expr_const(&mut self, block: &'ast syn::ExprConst) {
            self.needed.extend(identifiers(block.to_token_stream()));
        }
        fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
            self.function(&item.sig, &item.block);
            syn::visit::visit_item_fn(self, item);
        }
        fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
            self.function(&item.sig, &item.block);
            syn::visit::visit_impl_item_fn(self, item);
        }
    }
    let mut constants = Constants { needed: BTreeSet::new(), functions: Vec::new(), is_chosen: false };
    for (path, file) in all {
        constants.is_chosen = chosen.iter().any(|name| path.ends_with(name));
        constants.visit_file(file);
    }
    let Constants { mut needed, functions, .. } = constants;
    loop {
        let before = needed.len();
        for (name, is_chosen, uses) in &functions {
            if !is_chosen || needed.contains(name) {
                needed.insert(name.clone());
                needed.extend(uses.iter().cloned());
            }
        }
        if needed.len() == before {
            return needed;
        }
    }
}

fn identifiers(tokens: TokenStream) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for token in tokens {
        match token {
            TokenTree::Ident(name) => {
                names.insert(name.to_string());
            }
            TokenTree::Group(group) => names.extend(identifiers(group.stream())),
            TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
    }
    names
}

/// Beginnings of expressions whose slip would be no Rust: their types know no other operator or method.
const NO_SLIP: [(&str, &str); 4] = [
    ("domain/usage.rs", "* self + other"),
    ("wire/replay/messages.rs", "delta (index , kind , field) +"),
    ("engine/plan.rs", "self . push_front"),
    ("engine/retries.rs", "* next - now"),
];

struct Mutator<'a> {
    kept: &'a BTreeSet<String>,
    file: &'a str,
    next: u32,
    /// Functions around this place that run when the tests do.
    inside: u32,
}

impl Mutator<'_> {
    /// A new mutant, as the question whether it is tried.
    fn mutant(&mut self, span: Span, what: &str) -> Expr {
        let number = self.next;
        self.next += 1;
        println!("{number}\t{}\t{}\t{what}", self.file, span.start().line);
        parse_quote!(crate::mutant(#number))
    }

    fn function(&mut self, signature: &mut Signature, block: &mut Block) {
        let name = signature.ident.to_string();
        if signature.constness.is_some() {
            if self.kept.contains(&name) {
                return;
            }
            signature.constness = None;
        }
        if name == "fmt" || block.stmts.is_empty() {
            return;
        }
        let values = match &signature.output {
            ReturnType::Default => vec![quote!(())],
            ReturnType::Type(_, ty) => values_of(ty),
        };
        self.inside += 1;
        visit_mut::visit_block_mut(self, block);
        self.inside -= 1;
        let mut early = Vec::new();
        for value in values {
            let what = format!("fn {name}: return {value}");
            let tried = self.mutant(signature.ident.span(), &what);
            early.push(parse_quote!(if #tried { return #value; }));
        }
        early.append(&mut block.stmts);
        block.stmts = early;
    }
}

/// What stands for any value of a type.
fn values_of(ty: &Type) -> Vec<TokenStream> {
    let Type::Path(path) = ty else { return Vec::new() };
    let Some(last) = path.path.segments.last() else { return Vec::new() };
    match last.ident.to_string().as_str() {
        "bool" => vec![quote!(true), quote!(false)],
        "u8" | "u16" | "u32" | "u64" | "u128" | "usize" | "i8" | "i16" | "i32" | "i64" | "i128" | "isize" => {
            vec![quote!(0), quote!(1)]
        }
        "f64" | "f32" => vec![quote!(0.0), quote!(1.0)],
        "String" => vec![quote!(String::new())],
        "Vec" => vec![quote!(Vec::new())],
        "Option" => vec![quote!(None)],
        "Duration" => vec![quote!(std::time::Duration::ZERO)],
        _ => Vec::new(),
    }
}

fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let names = identifiers(attribute.to_token_stream());
        names.contains("test")
    })
}

fn has_let(expr: &Expr) -> bool {
    match expr {
        Expr::Let(_) => true,
        Expr::Binary(binary) => has_let(&binary.left) || has_let(&binary.right),
        _ => false,
    }
}

/// The other operators that a slip could have put in the place of this one.
fn slips(op: &BinOp) -> Option<BinOp> {
    Some(match op {
        BinOp::Lt(_) => parse_quote!(<=),
        BinOp::Le(_) => parse_quote!(<),
        BinOp::Gt(_) => parse_quote!(>=),
        BinOp::Ge(_) => parse_quote!(>),
        BinOp::Eq(_) => parse_quote!(!=),
        BinOp::Ne(_) => parse_quote!(==),
        BinOp::And(_) => parse_quote!(||),
        BinOp::Or(_) => parse_quote!(&&),
        BinOp::Add(_) => parse_quote!(-),
        BinOp::Sub(_) => parse_quote!(+),
        BinOp::Mul(_) => parse_quote!(/),
        BinOp::Div(_) => parse_quote!(*),
        BinOp::AddAssign(_) => parse_quote!(-=),
        BinOp::SubAssign(_) => parse_quote!(+=),
        _ => return None,
    })
}

fn other_method(name: &str) -> Option<&'static str> {
    Some(match name {
        "min" => "max",
        "max" => "min",
        "any" => "all",
        "all" => "any",
        "is_some" => "is_none",
        "is_none" => "is_some",
        "saturating_add" => "saturating_sub",
        "saturating_sub" => "saturating_add",
        "push_front" => "push_back",
        "push_back" => "push_front",
        _ => return None,
    })
}

impl VisitMut for Mutator<'_> {
    fn visit_item_mut(&mut self, item: &mut Item) {
        match item {
            Item::Mod(module) if is_for_tests(&module.attrs) => {}
            Item::Impl(block) if is_for_tests(&block.attrs) => {}
            Item::Const(_) | Item::Static(_) | Item::Macro(_) | Item::Enum(_) | Item::Struct(_) => {}
            _ => visit_mut::visit_item_mut(self, item),
        }
    }

    fn visit_item_fn_mut(&mut self, item: &mut syn::ItemFn) {
        if !is_for_tests(&item.attrs) {
            self.function(&mut item.sig, &mut item.block);
        }
    }

    fn visit_impl_item_fn_mut(&mut self, item: &mut syn::ImplItemFn) {
        if !is_for_tests(&item.attrs) {
            self.function(&mut item.sig, &mut item.block);
        }
    }

    fn visit_impl_item_const_mut(&mut self, _: &mut syn::ImplItemConst) {}

    fn visit_pat_mut(&mut self, _: &mut syn::Pat) {}

    fn visit_type_mut(&mut self, _: &mut Type) {}

    fn visit_attribute_mut(&mut self, _: &mut Attribute) {}

    fn visit_generic_argument_mut(&mut self, _: &mut syn::GenericArgument) {}

    fn visit_expr_mut(&mut self, expr: &mut Expr) {
        match expr {
            Expr::Repeat(repeat) => return self.visit_expr_mut(&mut repeat.expr),
            Expr::Const(_) | Expr::Macro(_) => return,
            _ => visit_mut::visit_expr_mut(self, expr),
        }
        let text = expr.to_token_stream().to_string();
        if self.inside == 0 || NO_SLIP.iter().any(|(file, begin)| self.file == *file && text.starts_with(begin)) {
            return;
        }
        let span = expr.span();
        match expr {
            Expr::Binary(binary) if !has_let(&binary.left) && !has_let(&binary.right) => {
                let Some(slip) = slips(&binary.op) else { return };
                let what = format!("{} becomes {}", binary.op.to_token_stream(), slip.to_token_stream());
                let (left, op, right) = (&binary.left, &binary.op, &binary.right);
                let place = binary.op.span();
                let tried = self.mutant(place, &what);
                *expr = parse_quote!((if #tried { #left #slip #right } else { #left #op #right }));
            }
            Expr::Unary(unary) if matches!(unary.op, UnOp::Not(_)) => {
                let inner = &unary.expr;
                let tried = self.mutant(span, "! is left out");
                *expr = parse_quote!((if #tried { #inner } else { !#inner }));
            }
            Expr::MethodCall(call) => {
                let Some(other) = other_method(&call.method.to_string()) else { return };
                let what = format!("{} becomes {other}", call.method);
                let place = call.method.span();
                let mut slipped = call.clone();
                slipped.method = syn::Ident::new(other, call.method.span());
                let call = call.clone();
                let tried = self.mutant(place, &what);
                *expr = parse_quote!((if #tried { #slipped } else { #call }));
            }
            Expr::Lit(literal) => {
                if let Lit::Int(number) = &literal.lit
                    && let Ok(value) = number.base10_parse::<u64>()
                {
                    let more =
                        syn::LitInt::new(&format!("{}{}", value.saturating_add(1), number.suffix()), number.span());
                    let number = number.clone();
                    let tried = self.mutant(span, &format!("{number} becomes {more}"));
                    *expr = parse_quote!((if #tried { #more } else { #number }));
                }
            }
            Expr::If(branch) if !has_let(&branch.cond) && !matches!(*branch.cond, Expr::Binary(_) | Expr::Paren(_)) => {
                let condition = branch.cond.clone();
                let tried = self.mutant(condition.span(), "the condition is reversed");
                *branch.cond = parse_quote!((#condition) != #tried);
            }
            _ => {}
        }
    }

    fn visit_arm_mut(&mut self, arm: &mut syn::Arm) {
        if let Some((_, guard)) = &mut arm.guard
            && !has_let(guard)
        {
            self.visit_expr_mut(guard);
        }
        self.visit_expr_mut(&mut arm.body);
    }
}
