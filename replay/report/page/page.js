for (const [id, spec] of Object.entries(data)) draw(id, spec);
