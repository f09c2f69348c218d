// Reads the parameters: JSON text that the host has made, so it is valid.

export enum Kind { String, Number, Other }

/** One member of an object. `text` is set for a string, `number` for a number. */
export class Member {
  kind: Kind = Kind.Other;
  text: string = "";
  number: f64 = NaN;
  constructor(public name: string) {}
}

/** The members of the object, or null when it is none. */
export function members(text: string): Member[] | null {
  const reader = new Reader(text);
  if (reader.peek() != c("{")) return null;
  const found: Member[] = [];
  while (reader.peek() == c("{") || reader.peek() == c(",")) {
    reader.at++;
    if (reader.peek() != c('"')) break;
    const member = new Member(reader.string());
    reader.peek();
    reader.at++; // the colon
    const next = reader.peek();
    if (next == c('"')) {
      member.kind = Kind.String;
      member.text = reader.string();
    } else if (next == c("-") || (next >= c("0") && next <= c("9"))) {
      member.kind = Kind.Number;
      member.number = parseFloat(reader.word());
    } else {
      reader.skip();
    }
    found.push(member);
  }
  return found;
}

// @ts-ignore: decorator
@inline
function c(char: string): i32 {
  return char.charCodeAt(0);
}

class Reader {
  at: i32 = 0;
  constructor(private text: string) {}

  /** The next character that is no space, without taking it; 0 at the end. */
  peek(): i32 {
    while (this.at < this.text.length && this.text.charCodeAt(this.at) <= c(" ")) this.at++;
    return this.at < this.text.length ? this.text.charCodeAt(this.at) : 0;
  }

  /** Takes a string and undoes its escapes. */
  string(): string {
    // Collected first: a string that grows is copied each time.
    const codes: i32[] = [];
    for (this.at++; this.at < this.text.length; this.at++) {
      let char = this.text.charCodeAt(this.at);
      if (char == c('"')) break;
      if (char == c("\\")) {
        char = this.text.charCodeAt(++this.at);
        if (char == c("b")) char = 8;
        else if (char == c("f")) char = 12;
        else if (char == c("n")) char = 10;
        else if (char == c("r")) char = 13;
        else if (char == c("t")) char = 9;
        else if (char == c("u")) {
          char = <i32>parseInt(this.text.substr(this.at + 1, 4), 16);
          this.at += 4;
        }
      }
      codes.push(char);
    }
    this.at++;
    return String.fromCharCodes(codes);
  }

  /** Takes a number, `true`, `false` or `null`. */
  word(): string {
    const start = this.at;
    while (this.at < this.text.length && !",]} \t\r\n".includes(this.text.charAt(this.at))) this.at++;
    return this.text.substring(start, this.at);
  }

  /** Takes a value of any kind. */
  skip(): void {
    let depth = 0;
    do {
      const next = this.peek();
      if (next == 0) return;
      if (next == c('"')) this.string();
      else if (next == c("{") || next == c("[")) { depth++; this.at++; }
      else if (next == c("}") || next == c("]")) { depth--; this.at++; }
      else if (next == c(",") || next == c(":")) this.at++;
      else this.word();
    } while (depth > 0);
  }
}
