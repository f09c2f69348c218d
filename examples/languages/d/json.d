/// Reads the parameters: JSON text that the host has made, so it is valid. One pass, member by member:
///
///     auto json = Json(text);
///     while (json.member(name)) { if (...) json.number(value); else json.skip(); }
module json;

import regatta : realloc, strtod;

@nogc nothrow:

private bool isOneOf(char c, const(char)[] of) {
    foreach (one; of) if (one == c) return true;
    return false;
}

struct Json {
    private const(char)[] rest;

@nogc nothrow:

    /// The next character that is no space, without taking it; 0 at the end.
    char peek() {
        while (rest.length && rest[0].isOneOf(" \t\r\n")) rest = rest[1 .. $];
        return rest.length ? rest[0] : '\0';
    }

    /// Takes a string, if there is one, and undoes its escapes.
    bool text(out const(char)[] to) {
        if (peek() != '"') return false;
        auto made = (cast(char*) realloc(null, rest.length))[0 .. rest.length];
        size_t length;
        rest = rest[1 .. $];
        for (; rest.length && rest[0] != '"'; rest = rest[1 .. $]) {
            char next = rest[0];
            if (next == '\\') {
                rest = rest[1 .. $];
                next = unescaped();
            }
            made[length++] = next;
        }
        rest = rest[1 .. $];
        to = made[0 .. length];
        return true;
    }

    private char unescaped() {
        switch (rest[0]) {
        case 'b': return '\b';
        case 'f': return '\f';
        case 'n': return '\n';
        case 'r': return '\r';
        case 't': return '\t';
        case 'u':
            // The host escapes control characters so, and nothing else.
            uint code;
            foreach (digit; rest[1 .. 5]) {
                code = code * 16 + (digit <= '9' ? digit - '0' : (digit | 0x20) - 'a' + 10);
            }
            rest = rest[4 .. $];
            return cast(char) code;
        default: return rest[0];
        }
    }

    /// Takes a number, if there is one.
    bool number(ref double to) {
        char[64] digits = 0;
        peek();
        size_t length;
        while (length < rest.length && rest[length].isOneOf("+-.0123456789eE")) length++;
        if (length == 0 || length >= digits.length) return false;
        foreach (at, digit; rest[0 .. length]) digits[at] = digit;
        to = strtod(digits.ptr, null);
        rest = rest[length .. $];
        return true;
    }

    /// Takes a value of any kind.
    void skip() {
        int depth;
        do {
            const next = peek();
            if (next == 0) return;
            if (next == '"') {
                const(char)[] ignored;
                text(ignored);
                continue;
            }
            if (next.isOneOf("{[")) depth++;
            else if (next.isOneOf("}]")) depth--;
            else if (!next.isOneOf(",:")) {
                while (rest.length && !rest[0].isOneOf(",]} \t\r\n")) rest = rest[1 .. $];
                continue;
            }
            rest = rest[1 .. $];
        } while (depth > 0);
    }

    /// Goes to the next member of an object; false at its end, or when this is no object.
    bool member(out const(char)[] name) {
        if (!peek().isOneOf("{,")) return false;
        rest = rest[1 .. $];
        if (!text(name)) return false;
        peek();
        rest = rest[1 .. $]; // the colon
        return true;
    }
}
