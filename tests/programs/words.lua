-- SPDX-License-Identifier: Apache-2.0
--
-- A table of words, a coroutine that has come some way, and an unnamed temporary file.
local secret = tostring(math.random(0)):gsub("%-", "")
local words = {}
for i = 1, 20000 do words["word" .. i] = i * 7 end
local count = coroutine.wrap(function() for i = 1, math.huge do coroutine.yield(i) end end)
for _ = 1, 1000 do count() end
local calls = 1000
local file = io.tmpfile()
file:write(secret)
file:flush()

local function check()
  for i = 1, 20000, 97 do assert(words["word" .. i] == i * 7) end
  calls = calls + 1
  assert(count() == calls)
  file:seek("set")
  assert(file:read("a") == secret)
  return "ok"
end

io.stdout:setvbuf("line")
print("ready")
for line in io.lines() do print(line == "secret?" and secret or check()) end
