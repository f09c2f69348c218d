## The plain-memory JSON contract of Regatta: the host writes JSON text into this module's memory and reads JSON text
## from it. Nothing here is about the policy. An instance runs one call and is gone.

import std/json

type
  Problem* = object ## What is wrong with the parameters, and where (a JSON pointer).
    path*, message*: string
  Manifest* = object ## What a policy says of itself.
    name*, version*, description*: string
    paramsSchema*: JsonNode
    metrics*: seq[string]
  Reason* = object ## Why it decided so: a stable code, a sentence, and what it rests on.
    code*, text*: string
    evidence*: seq[(string, string)]
  Outcome* = object ## What it wants; the state is handed to the next `decide`.
    capacity*: int
    reasons*: seq[Reason]
    state*: JsonNode

proc metric*(tick: JsonNode, name: string): JsonNode =
  ## A metric that `describe` asked for; nil if the set does not have it.
  for metric in tick["metrics"]:
    if metric["name"].getStr == name: return metric

proc log(level: int32, at: pointer, len: int32) {.importc: "regatta_log".}
{.emit: """__attribute__((import_module("regatta"), import_name("log"))) void regatta_log(NI32, void*, NI32);""".}

var answer: string ## Must live until the host has read it.

proc give(value: JsonNode): int64 =
  answer = $value
  cast[int64](cast[uint64](cast[uint32](addr answer[0])) shl 32 or uint64(answer.len))

proc taken(at: ptr UncheckedArray[char], len: int32): JsonNode =
  var text = newString(len)
  if len > 0: copyMem(addr text[0], at, len)
  try: parseJson(text)
  except CatchableError: newJNull()

proc toJson(reasons: seq[Reason]): JsonNode =
  result = newJArray()
  for reason in reasons:
    var evidence = newJArray()
    for (name, value) in reason.evidence: evidence.add %*[name, value]
    result.add %*{"code": reason.code, "text": reason.text, "evidence": evidence}

template exportPolicy*(describe, validate, decide: untyped) =
  ## Makes the module's exports of a policy's three functions.
  {.emit: """void NimMain(void); __attribute__((constructor)) static void regatta_start(void) { NimMain(); }""".}

  proc allocExport(len: int32): pointer {.exportc: "regatta_alloc", codegenDecl: "__attribute__((export_name(\"regatta_alloc\"))) $# $#$#".} =
    alloc(max(len, 1))

  proc describeExport(): int64 {.exportc: "regatta_describe", codegenDecl: "__attribute__((export_name(\"regatta_describe\"))) $# $#$#".} =
    let it = describe()
    var metrics = newJArray()
    for name in it.metrics: metrics.add %*{"name": name}
    give(%*{"name": it.name, "version": it.version, "description": it.description,
      "params_schema": it.paramsSchema, "metrics": metrics})

  proc validateExport(at: ptr UncheckedArray[char], len: int32): int64 {.exportc: "regatta_validate", codegenDecl: "__attribute__((export_name(\"regatta_validate\"))) $# $#$#".} =
    var problems = newJArray()
    for it in validate(taken(at, len)): problems.add %*{"path": it.path, "message": it.message}
    give(problems)

  proc decideExport(at: ptr UncheckedArray[char], len: int32): int64 {.exportc: "regatta_decide", codegenDecl: "__attribute__((export_name(\"regatta_decide\"))) $# $#$#".} =
    let given = taken(at, len)
    try:
      let it = decide(given["tick"], given["params"], given["state"])
      give(%*{"ok": {"capacity": it.capacity, "reasons": toJson(it.reasons), "state": it.state}})
    except CatchableError as error:
      give(%*{"error": error.msg})
