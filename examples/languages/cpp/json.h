// Reads the parameters: JSON text that the host has made, so it is valid. One pass, member by member:
//
//     json in = json_open(text);
//     while (json_member(&in, &name)) { if (...) json_number(&in, &value); else json_skip(&in); }
#pragma once

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "regatta.h"

typedef struct { const char *at, *end; } json;

static json json_open(str text) {
    json in = {text.at, text.at + text.len};
    return in;
}

// The next character that is no space, without taking it; 0 at the end.
static char json_peek(json *in) {
    while (in->at < in->end && strchr(" \t\r\n", *in->at)) in->at++;
    return in->at < in->end ? *in->at : 0;
}

// Takes a string, if there is one, and undoes its escapes.
static bool json_string(json *in, str *to) {
    if (json_peek(in) != '"') return false;
    char *out = (char *)malloc(in->end - in->at), *next = out;
    for (in->at++; in->at < in->end && *in->at != '"'; in->at++) {
        if (*in->at != '\\') { *next++ = *in->at; continue; }
        char escaped = *++in->at;
        const char *known = strchr("b\bf\fn\nr\rt\t", escaped);
        if (escaped == 'u') {
            // The host escapes control characters so, and nothing else.
            char digits[5] = {0};
            memcpy(digits, in->at + 1, 4);
            *next++ = (char)strtol(digits, NULL, 16);
            in->at += 4;
        } else {
            *next++ = known ? known[1] : escaped;
        }
    }
    in->at++;
    to->at = out;
    to->len = next - out;
    return true;
}

// Takes a number, if there is one.
static bool json_number(json *in, double *to) {
    char digits[64] = {0};
    json_peek(in);
    size_t len = 0;
    while (in->at + len < in->end && strchr("+-.0123456789eE", in->at[len])) len++;
    if (len == 0 || len >= sizeof digits) return false;
    memcpy(digits, in->at, len);
    *to = strtod(digits, NULL);
    in->at += len;
    return true;
}

// Takes a value of any kind.
static void json_skip(json *in) {
    str ignored;
    int depth = 0;
    do {
        switch (json_peek(in)) {
        case 0: return;
        case '"': json_string(in, &ignored); continue;
        case '{': case '[': depth++; break;
        case '}': case ']': depth--; break;
        case ',': case ':': break;
        default:
            while (in->at < in->end && !strchr(",]} \t\r\n", *in->at)) in->at++;
            continue;
        }
        in->at++;
    } while (depth > 0);
}

// Goes to the next member of an object; false at its end, or when this is no object.
static bool json_member(json *in, str *name) {
    char next = json_peek(in);
    if (next != '{' && next != ',') return false;
    in->at++;
    if (!json_string(in, name)) return false;
    json_peek(in);
    in->at++; // the colon
    return true;
}

static bool is(str one, const char *other) { return one.len == strlen(other) && !memcmp(one.at, other, one.len); }
