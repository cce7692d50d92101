// Walks through npm's client for Mailpit against our server: node mailpit-api.cjs http://127.0.0.1:PORT
const assert = require("node:assert/strict");
const { MailpitClient } = require("mailpit-api");

async function walk(url) {
  const mailpit = new MailpitClient(url);
  const one = (await mailpit.sendMessage({
    From: { Email: "anne@example.com", Name: "Anne" },
    To: [{ Email: "bart@example.com" }],
    Cc: [{ Email: "cate@example.com", Name: "Cate" }],
    Bcc: ["dan@example.com"],
    Subject: "Welcome",
    Text: "Your code is 123456.",
    HTML: '<p>Hello <img src="cid:logo"></p>',
    Headers: { "X-Test": "yes" },
    Tags: ["first"],
    Attachments: [
      { Filename: "a.txt", Content: Buffer.from("text").toString("base64") },
      { Filename: "logo.png", Content: "iVBORw0KGgo=", ContentType: "image/png", ContentID: "logo" },
    ],
  })).ID;
  await mailpit.sendMessage({ From: { Email: "x@example.com" }, To: [{ Email: "y@example.com" }], Subject: "Other" });

  const list = await mailpit.listMessages();
  assert.equal(list.total, 2);
  assert.deepEqual(list.messages.map((m) => m.Subject), ["Other", "Welcome"]);
  assert.equal((await mailpit.listMessages(1, 1)).messages[0].ID, one);
  const found = await mailpit.searchMessages({ query: "subject:welcome", start: 0, limit: 5, tz: "Europe/Berlin" });
  assert.equal(found.messages_count, 1);

  const message = await mailpit.getMessageSummary(one);
  assert.equal(message.From.Name, "Anne");
  assert.deepEqual(message.Bcc.map((a) => a.Address), ["dan@example.com"]);
  assert.deepEqual(message.Tags, ["first"]);
  assert.ok(!Number.isNaN(new Date(message.Date).getTime()));
  assert.deepEqual(message.Attachments.map((a) => a.FileName), ["a.txt"]);
  assert.deepEqual(message.Inline.map((a) => a.ContentID), ["logo"]);
  assert.equal((await mailpit.waitForMessage({ query: "to:bart" })).ID, one);
  assert.equal((await mailpit.waitForMessages({ count: 2 })).messages.length, 2);

  assert.deepEqual((await mailpit.getMessageHeaders(one))["X-Test"], ["yes"]);
  assert.match(await mailpit.getMessageSource(one), /^From: Anne/);
  const blob = await mailpit.getMessageAttachment(one, message.Attachments[0].PartID);
  assert.equal(await blob.text(), "text");
  assert.equal((await mailpit.getAttachmentThumbnail(one, message.Inline[0].PartID)).type, "image/jpeg");
  assert.match(await mailpit.renderMessageHTML(one), /src="\/api\/v1\/message\//);
  assert.match(await mailpit.renderMessageHTML(one, 1), /target="_blank"/);
  assert.match(await mailpit.renderMessageText(one), /123456/);

  const check = await mailpit.htmlCheck(one);
  assert.ok(check.Total.Supported > 0 && Array.isArray(check.Warnings));
  await assert.rejects(mailpit.linkCheck(one), /--check-links/);

  assert.equal(await mailpit.setReadStatus({ IDs: [one], Read: false }), "ok");
  assert.equal((await mailpit.searchMessages({ query: "is:unread" })).messages_count, 2);
  assert.equal(await mailpit.setReadStatus({ Search: "subject:other", Read: true }, { tz: "UTC" }), "ok");
  assert.equal(await mailpit.setReadStatus({ Read: true }), "ok");
  assert.equal((await mailpit.getInfo()).Unread, 0);

  assert.equal(await mailpit.setTags({ IDs: [one], Tags: ["red one", "blue"] }), "ok");
  assert.deepEqual(await mailpit.getTags(), ["blue", "red one"]);
  assert.equal(await mailpit.renameTag("red one", "green"), "ok");
  assert.equal(await mailpit.deleteTag("blue"), "ok");
  assert.deepEqual((await mailpit.getInfo()).Tags, { green: 1 });

  const trigger = { ErrorCode: 451, Probability: 5 };
  const triggers = await mailpit.setChaosTriggers({ Sender: trigger });
  assert.deepEqual(triggers.Sender, trigger);
  assert.equal((await mailpit.setChaosTriggers()).Sender.Probability, 0);
  assert.equal((await mailpit.getChaosTriggers()).Recipient.Probability, 0);
  assert.equal((await mailpit.getConfiguration()).ChaosEnabled, true);

  assert.equal(await mailpit.releaseMessage(one, { To: ["real@example.com"] }), "ok");
  assert.equal(await mailpit.deleteMessagesBySearch({ query: "subject:other" }), "ok");
  assert.equal(await mailpit.deleteMessages({ IDs: [one] }), "ok");
  await assert.rejects(mailpit.getMessageSummary(one), /404/);
  await mailpit.sendMessage({ From: { Email: "x@example.com" }, To: [{ Email: "y@example.com" }] });
  assert.equal(await mailpit.deleteMessages(), "ok");
  assert.equal((await mailpit.listMessages()).total, 0);
}

walk(process.argv[2]).catch((error) => { console.error(error); process.exit(1); });
