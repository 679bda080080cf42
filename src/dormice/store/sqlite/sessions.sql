-- name: memory
-- What is remembered of a session.
SELECT summary, messages FROM session_memories WHERE project_id = ? AND session_id = ?;

-- name: remember
-- What is remembered of a session from now on.
INSERT OR REPLACE INTO session_memories (project_id, session_id, summary, messages, updated_at) VALUES (?, ?, ?, ?, ?);

-- name: say
-- A message.
INSERT INTO messages (
    id, project_id, conversation_id, agent_id, role, content, agent_run_id, deployment_id, created_at
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: forget
-- All messages of a conversation but the latest.
DELETE FROM messages WHERE project_id = ?1 AND conversation_id = ?2 AND agent_id = ?3 AND number <= (
    SELECT number FROM messages WHERE project_id = ?1 AND conversation_id = ?2 AND agent_id = ?3
    ORDER BY number DESC LIMIT 1 OFFSET ?4
);

-- name: said
-- The latest messages of a conversation, the last one first.
SELECT id, conversation_id, agent_id, role, content, created_at, agent_run_id, deployment_id FROM messages
WHERE project_id = ?1 AND conversation_id = ?2 AND agent_id = ?3 AND (?4 IS NULL OR deployment_id = ?4)
ORDER BY number DESC LIMIT ?5;
